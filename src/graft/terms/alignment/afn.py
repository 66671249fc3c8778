"""AFN: embeddings of both domains grow, step by step (Xu et al., ICCV 2019)."""

import torch
from torch import Tensor

from graft.config.types import NonNegative
from graft.terms.alignment.base import Alignment
from graft.terms.base import TrainStep


class AFN(Alignment):
    """Squared distance of each embedding's norm to what it is now plus `growth`, the mean over both domains."""

    def __init__(self, weight: NonNegative = 0.05, growth: NonNegative = 1.0) -> None:
        super().__init__("afn", weight)
        self.growth = growth

    def forward(self, step: TrainStep) -> Tensor:
        """The mean; its value is always growth^2, its gradient is what counts."""
        norms = torch.cat([step.embeddings[domain].norm(dim=1) for domain in self.domains])
        return (norms - (norms.detach() + self.growth)).square().mean()
