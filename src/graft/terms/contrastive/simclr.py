"""SimCLR: two views of a sample are more alike than those of different samples (Chen et al., ICML 2020)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.config.types import Count, NonNegative, Positive
from graft.terms.base import TermContext
from graft.terms.pretext.two_views import Side, TwoViews, perceptron
from graft.terms.processes import gathered_to_learn


def contrast_of_views(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """NT-Xent of projections `(B, P)` of two views: each sample's other view among all `2 B - 1` others."""
    projections = F.normalize(torch.cat([first, second]), dim=1)
    similarities = projections @ projections.T / temperature
    similarities.fill_diagonal_(-torch.inf)
    partners = torch.arange(len(projections), device=projections.device).roll(len(first))
    return F.cross_entropy(similarities, partners)


class SimCLR(TwoViews):
    """NT-Xent of a projector's outputs over the training batch and a second view of it.

    The projector has two layers with ReLU between, as in the paper. Several processes contrast the samples of all.
    """

    def __init__(
        self,
        weight: NonNegative = 1.0,
        domain: Side = "source",
        temperature: Positive = 0.5,
        projection_size: Count = 128,
    ) -> None:
        super().__init__(weight, domain)
        self.temperature = temperature
        self.projection_size = projection_size

    def prepare(self, context: TermContext) -> None:
        """Make the projector."""
        super().prepare(context)
        size = context.backbone.feature_size
        self.projector = perceptron((size, size, self.projection_size), normalised=False)

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """The contrast of the projections."""
        first, second = gathered_to_learn(self.projector(first)), gathered_to_learn(self.projector(second))
        return contrast_of_views(first, second, self.temperature)
