"""CORAL between sources: features of equal mean and covariance (Sun and Saenko, 2016; as in DomainBed)."""

import itertools

import torch
from torch import Tensor

from graft.config.types import NonNegative
from graft.terms.alignment.coral import covariance
from graft.terms.base import TrainStep
from graft.terms.generalization.base import OverSources
from graft.terms.requirements import check_at_least


class SourceCORAL(OverSources):
    """Mean over pairs of sources of the mean squared differences of their embeddings' means and of their covariances.

    A source of which a batch has fewer than two samples is left out of it; without a pair the value is 0.
    """

    name = "source_coral"
    aligns = True

    def __init__(self, weight: NonNegative = 1.0) -> None:
        super().__init__()
        check_at_least("source_coral.weight", weight, 0)
        self.weight = weight

    def forward(self, step: TrainStep) -> Tensor:
        """The mean over pairs."""
        embeddings = step.embeddings["source"]
        groups = [embeddings[places.to(embeddings.device)] for places in self.groups(step).values() if len(places) > 1]
        moments = [(group.mean(dim=0), covariance(group)) for group in groups]
        pairs = [
            (mean - other_mean).square().mean() + (spread - other_spread).square().mean()
            for (mean, spread), (other_mean, other_spread) in itertools.combinations(moments, 2)
        ]
        return torch.stack(pairs).mean() if pairs else embeddings.sum() * 0
