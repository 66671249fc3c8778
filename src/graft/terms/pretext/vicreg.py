"""VICReg: views alike, every output varied, no two outputs alike (Bardes, Ponce and LeCun, ICLR 2022)."""

import torch.nn.functional as F
from torch import Tensor

from graft.config.types import Count, NonNegative
from graft.terms.base import TermContext
from graft.terms.pretext.two_views import Side, TwoViews, perceptron
from graft.terms.processes import gathered_to_learn
from graft.terms.requirements import check_several

EPSILON = 1e-4  # of the authors, under the root of a variance


def invariance(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared difference of projections `(B, P)` of two views."""
    return F.mse_loss(first, second)


def variance(projections: Tensor) -> Tensor:
    """How much the standard deviation of outputs `(B, P)` lacks to 1, the mean over the P."""
    return F.relu(1 - (projections.var(dim=0) + EPSILON).sqrt()).mean()


def covariance(projections: Tensor) -> Tensor:
    """Squared covariances of different outputs `(B, P)`, summed and divided by P."""
    centred = projections - projections.mean(dim=0)
    matrix = centred.T @ centred / (len(projections) - 1)
    return (matrix.square().sum() - matrix.diagonal().square().sum()) / projections.shape[1]


class VICReg(TwoViews):
    """Invariance, variance and covariance of a projector's outputs for two views, weighted as in the authors' code.

    No sample is compared with another, so that batches need not be large. The projector has three layers with BatchNorm
    as in the paper. The statistics, BatchNorm's too, are those of all processes' samples. Raises GraftError for batches
    of one sample.
    """

    def __init__(
        self,
        weight: NonNegative = 1.0,
        domain: Side = "source",
        invariance_weight: NonNegative = 25.0,
        variance_weight: NonNegative = 25.0,
        covariance_weight: NonNegative = 1.0,
        projection_size: Count = 512,
    ) -> None:
        super().__init__(weight, domain)
        self.weights = (invariance_weight, variance_weight, covariance_weight)
        self.projection_size = projection_size

    def prepare(self, context: TermContext) -> None:
        """Make the projector."""
        super().prepare(context)
        size = self.projection_size
        self.projector = perceptron((context.backbone.feature_size, size, size, size), normalised=True)

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """The weighted sum; the variance's part is the mean over both views, the covariance's their sum."""
        first, second = gathered_to_learn(first), gathered_to_learn(second)
        check_several([first], "vicreg")
        first, second = self.projector(first), self.projector(second)
        alike, varied, unlike = self.weights
        spread = (variance(first) + variance(second)) / 2
        return alike * invariance(first, second) + varied * spread + unlike * (covariance(first) + covariance(second))
