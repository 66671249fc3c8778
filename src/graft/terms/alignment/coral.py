"""CORAL: source and target embeddings have the same covariances (Sun and Saenko, ECCV Workshops 2016)."""

from torch import Tensor

from graft.config.types import NonNegative
from graft.terms.alignment.base import Alignment
from graft.terms.base import TrainStep


def covariance(rows: Tensor) -> Tensor:
    """Unbiased covariance `(D, D)` of rows `(B, D)`."""
    centred = rows - rows.mean(dim=0)
    return centred.T @ centred / (len(rows) - 1)


def coral(source: Tensor, target: Tensor) -> Tensor:
    """`||C_s - C_t||_F^2 / (4 D^2)` of embeddings `(B, D)`; the means do not count."""
    return (covariance(source) - covariance(target)).square().sum() / (4 * source.shape[1] ** 2)


class CORAL(Alignment):
    """Squared distance of the covariances of source and target embeddings.

    The paper chooses the weight so that this term and the classification loss are of one size at the end of training.
    """

    least = 2

    def __init__(self, weight: NonNegative = 1.0) -> None:
        super().__init__("coral", weight)

    def forward(self, step: TrainStep) -> Tensor | None:
        """The distance; None for a batch of a single sample."""
        return coral(*pair) if (pair := self.pair(step)) else None
