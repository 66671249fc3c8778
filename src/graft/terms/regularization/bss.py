"""Batch Spectral Shrinkage: the weakest directions of the features shall vanish (Chen et al., NeurIPS 2019)."""

import torch
from torch import Tensor

from graft.config.types import Count, NonNegative
from graft.errors import GraftError
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.requirements import check_at_least


def smallest_singular_values(features: Tensor, k: int) -> Tensor:
    """The k smallest singular values of `(B, D)`, or all of them where there are fewer.

    `svdvals` has a finite gradient also where values repeat, which an SVD's vectors have not.
    """
    precise = features.to(torch.promote_types(features.dtype, torch.float32))  # there is no SVD in half precision
    return torch.linalg.svdvals(precise)[-k:]


class BSS(Term):
    """Sum of squares of the k smallest singular values of a step's features.

    Raises GraftError where k is more than the features or a full batch's samples; a smaller last batch is fine.
    """

    needs_inputs = False

    def __init__(self, weight: NonNegative = 1e-3, k: Count = 1) -> None:
        super().__init__()
        check_at_least("bss.weight", weight, 0)
        check_at_least("bss.k", k, 1)
        self.weight = weight
        self.k = k
        self._seen_a_batch = False

    def prepare(self, context: TermContext) -> None:
        """Compare k with the features."""
        self._refuse_above(context.backbone.feature_size, f"the {context.backbone.name}'s features")

    def forward(self, step: TrainStep) -> Tensor:
        """The squares' sum over the features of all domains as one batch."""
        features = step.all_features
        if not self._seen_a_batch:  # the first is a full one
            self._refuse_above(len(features), "a batch's samples")
            self._seen_a_batch = True
        return smallest_singular_values(features, self.k).square().sum()

    def _refuse_above(self, largest: int, of: str) -> None:
        if self.k > largest:
            raise GraftError(
                f"term.bss.k={self.k} is more than {of}: features (B, D) have min(B, D) singular values. "
                f"Set term.bss.k to at most {largest}."
            )
