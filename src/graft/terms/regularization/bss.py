"""Batch Spectral Shrinkage: the weakest directions of the features shall vanish (Chen et al., NeurIPS 2019)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graft.config.types import Count, NonNegative
from graft.errors import GraftError
from graft.heads.base import SHARED, takes_local
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.requirements import check_at_least


def smallest_singular_values(features: Tensor, k: int) -> Tensor:
    """The k smallest singular values of `(B, D)`, or all of them where there are fewer.

    `svdvals` has a finite gradient also where values repeat, which an SVD's vectors have not.
    """
    precise = features.to(torch.promote_types(features.dtype, torch.float32))  # there is no SVD in half precision
    return torch.linalg.svdvals(precise)[-k:]


class BSS(Term):
    """Sum of squares of the k smallest singular values of a step's features, of which the head makes its predictions.

    Of a head that pools by itself these are the vectors that it pools.

    Raises GraftError where k is more than the features or a full batch's samples; a smaller last batch is fine.
    """

    federates = True
    needs_inputs = False

    def __init__(self, weight: NonNegative = 1e-3, k: Count = 1) -> None:
        super().__init__()
        check_at_least("bss.weight", weight, 0)
        check_at_least("bss.k", k, 1)
        self.weight = weight
        self.k = k
        self._seen_a_batch = False
        self._heads: Mapping[str, Any] = {}  # those that pool by themselves, which are no parts of this module

    def check(self, context: TermContext) -> None:
        """GraftError for a head that pools by itself and keeps to itself what."""
        if takes_local(context.target_head) and not hasattr(context.target_head, "pooled"):
            raise GraftError(
                "term.bss looks at the vectors that the head classifies, and the head pools them by itself. Give its "
                "class a method pooled(tokens) that returns them, (B, D), or leave the term out."
            )

    def prepare(self, context: TermContext) -> None:
        """Compare k with the features."""
        self.check(context)
        if takes_local(context.target_head):
            self._heads = dict(context.heads)
        else:
            self._refuse_above(context.backbone.feature_size, f"the {context.backbone.name}'s features")

    def features(self, step: TrainStep) -> Tensor:
        """What heads classify `(B, D)`, of all domains as one batch."""
        if not self._heads:
            return step.all_features
        heads = {domain: self._heads.get(SHARED) or self._heads[domain] for domain in step.seen}
        return torch.cat([heads[domain].pooled(seen) for domain, seen in step.seen.items()])

    def forward(self, step: TrainStep) -> Tensor:
        """The squares' sum."""
        features = self.features(step)
        if not self._seen_a_batch:  # the first is a full one
            self._refuse_above(features.shape[1], "what the head pools")
            self._refuse_above(len(features), "a batch's samples")
            self._seen_a_batch = True
        return smallest_singular_values(features, self.k).square().sum()

    def _refuse_above(self, largest: int, of: str) -> None:
        if self.k > largest:
            raise GraftError(
                f"term.bss.k={self.k} is more than {of}: features (B, D) have min(B, D) singular values. "
                f"Set term.bss.k to at most {largest}."
            )
