"""Adaptive Feature Norm: features of both domains grow, since small ones transfer badly (Xu et al., ICCV 2019)."""

import torch
from torch import Tensor

from graft.config.types import NonNegative
from graft.terms.base import Term, TrainStep


class AFN(Term):
    """Mean squared distance of each feature vector's length to its own length now plus `growth`: the stepwise variant.

    The value is always `growth` squared; its gradient lets every length grow at the same rate.
    """

    domains = ("source", "target")
    needs_inputs = False
    aligns = True

    def __init__(self, weight: NonNegative = 0.05, growth: NonNegative = 1.0) -> None:
        super().__init__()
        self.weight = weight
        self.growth = growth

    def forward(self, step: TrainStep) -> Tensor:
        """The mean over all samples of both domains."""
        lengths = torch.cat([*step.embeddings.values()]).norm(dim=1)
        return (lengths - (lengths.detach() + self.growth)).square().mean()
