"""Batch Spectral Penalization: no direction of the features shall dominate (Chen et al., ICML 2019)."""

import torch
from torch import Tensor

from graft.config.types import NonNegative
from graft.terms.base import Term, TrainStep


def largest_singular_value(features: Tensor) -> Tensor:
    """That of `(B, D)`, in single precision at least: there is no SVD in half."""
    return torch.linalg.svdvals(features.to(torch.promote_types(features.dtype, torch.float32)))[0]


class BSP(Term):
    """Sum of the squares of the largest singular value of each domain's features; goes with DANN or CDAN.

    These raise the transferable directions until the others, which tell classes apart, are small beside them.
    """

    domains = ("source", "target")
    needs_inputs = False
    aligns = True

    def __init__(self, weight: NonNegative = 2e-4) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, step: TrainStep) -> Tensor:
        """The squares' sum."""
        squares = (largest_singular_value(step.embeddings[domain]).square() for domain in self.domains)
        return torch.stack([*squares]).sum()
