"""SimCLR: two views of a sample are more alike than those of different samples (Chen et al., ICML 2020)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.config.types import Count, NonNegative, Positive
from graft.terms.base import Term, TermContext, TrainStep


def contrast_of_views(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """NT-Xent of projections `(B, P)` of two views: each sample's other view among all `2 B - 1` others."""
    projections = F.normalize(torch.cat([first, second]), dim=1)
    similarities = projections @ projections.T / temperature
    similarities.fill_diagonal_(-torch.inf)
    partners = torch.arange(len(projections), device=projections.device).roll(len(first))
    return F.cross_entropy(similarities, partners)


class SimCLR(Term):
    """NT-Xent of a projector's outputs over the training batch and a second view of it; no label is looked at.

    The batch's own augmentation (`data.augment`, `pretrain.augment`) makes the first view. The projector, two layers
    with ReLU between as in the paper, is left behind after training.
    """

    views = ("weak",)

    def __init__(
        self,
        weight: NonNegative = 1.0,
        domain: Literal["source", "target"] = "source",
        temperature: Positive = 0.5,
        projection_size: Count = 128,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.domains = (domain,)
        self.temperature = temperature
        self.projection_size = projection_size

    def prepare(self, context: TermContext) -> None:
        """Make the projector."""
        size = context.backbone.feature_size
        self.projector = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, self.projection_size))
        self._backbone = (context.backbone,)  # in a tuple, so that it is no part of this module

    def forward(self, step: TrainStep) -> Tensor:
        """The contrast of the step's samples."""
        (domain,) = self.domains
        second = self._backbone[0](step.batch[domain].views["weak"])
        return contrast_of_views(self.projector(step.features[domain]), self.projector(second), self.temperature)
