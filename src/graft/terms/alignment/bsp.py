"""BSP: no direction of the embeddings stands out in either domain (Chen et al., ICML 2019)."""

import torch
from torch import Tensor

from graft.config.types import Count, NonNegative
from graft.terms.alignment.base import Alignment
from graft.terms.base import TrainStep
from graft.terms.requirements import check_at_least


class BSP(Alignment):
    """Sum of the squares of the k largest singular values of the source's and of the target's embeddings.

    It goes with `dann` or `cdan`, whose transferable directions it keeps from taking over.
    """

    def __init__(self, weight: NonNegative = 2e-4, k: Count = 1) -> None:
        super().__init__("bsp", weight)
        check_at_least("bsp.k", k, 1)
        self.k = k

    def forward(self, step: TrainStep) -> Tensor:
        """The sum."""
        return torch.stack([largest(step.embeddings[domain], self.k) for domain in self.domains]).sum()


def largest(embeddings: Tensor, k: int) -> Tensor:
    """The sum of squares of the k largest singular values of `(B, E)`."""
    precise = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))  # there is no SVD in half precision
    return torch.linalg.svdvals(precise)[:k].square().sum()
