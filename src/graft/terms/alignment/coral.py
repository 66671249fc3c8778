"""Deep CORAL: source and target features with one covariance (Sun and Saenko, ECCV workshops 2016)."""

import torch
from torch import Tensor

from graft.config.types import NonNegative
from graft.terms.base import Term, TrainStep
from graft.terms.processes import gathered_to_learn
from graft.terms.requirements import check_several


def covariance(features: Tensor) -> Tensor:
    """Unbiased covariance `(D, D)` of `(B, D)`, in single precision at least."""
    with torch.autocast(features.device.type, enabled=False):
        return torch.cov(features.to(torch.promote_types(features.dtype, torch.float32)).T)


class CORAL(Term):
    """Squared distance of both domains' feature covariances over 4 D^2; means do not count.

    The covariances are those of all processes' samples. Raises GraftError for batches of one sample.
    """

    domains = ("source", "target")
    needs_inputs = False
    aligns = True

    def __init__(self, weight: NonNegative = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, step: TrainStep) -> Tensor:
        """The distance, of all D^2 entries."""
        source, target = (gathered_to_learn(step.embeddings[domain]) for domain in self.domains)
        check_several((source, target), "coral")
        difference = covariance(source) - covariance(target)
        return difference.square().mean() / 4
