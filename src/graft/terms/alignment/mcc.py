"""MCC: predictions of target samples do not confuse classes (Jin et al., ECCV 2020)."""

import torch
from torch import Tensor

from graft.config.types import NonNegative, Positive
from graft.terms.base import Term, TrainStep
from graft.terms.requirements import check_at_least


def class_confusion(logits: Tensor, temperature: float) -> Tensor:
    """Share of a batch's predicted class pairs `(B, K)` that are of two classes; surer samples count more."""
    probabilities = (logits / temperature).softmax(dim=1)
    weights = 1 + torch.exp(-torch.special.entr(probabilities.detach()).sum(dim=1))
    weights = len(logits) * weights / weights.sum()
    pairs = (probabilities * weights[:, None]).T @ probabilities
    pairs = pairs / pairs.sum(dim=1, keepdim=True)
    return (pairs.sum() - pairs.trace()) / logits.shape[1]


class MCC(Term):
    """Class confusion of the target's predictions; no label is looked at."""

    needs_multiclass = True
    domains = ("target",)
    needs_inputs = False

    def __init__(self, weight: NonNegative = 1.0, temperature: Positive = 2.5) -> None:
        super().__init__()
        check_at_least("mcc.weight", weight, 0)
        self.weight = weight
        self.temperature = temperature

    def forward(self, step: TrainStep) -> Tensor:
        """The confusion."""
        return class_confusion(step.logits["target"], self.temperature)
