"""Information maximisation: sure predictions of the target, over all classes (SHOT-IM; Liang et al., ICML 2020)."""

import torch
from torch import Tensor

from graft.config.types import NonNegative
from graft.terms.base import Term, TrainStep
from graft.terms.requirements import check_at_least


class InformationMaximisation(Term):
    """Mean entropy of the target's predictions less the entropy of their mean; no label is looked at."""

    needs_multiclass = True
    domains = ("target",)
    needs_inputs = False

    def __init__(self, weight: NonNegative = 1.0) -> None:
        super().__init__()
        check_at_least("information_maximisation.weight", weight, 0)
        self.weight = weight

    def forward(self, step: TrainStep) -> Tensor:
        """The difference."""
        probabilities = step.logits["target"].softmax(dim=1)
        return entropy(probabilities).mean() - entropy(probabilities.mean(dim=0))


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy of class probabilities `(..., K)`, in nats."""
    return torch.special.entr(probabilities).sum(dim=-1)
