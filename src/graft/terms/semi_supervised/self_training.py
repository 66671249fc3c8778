"""Self-training: sure predictions of the target are labels, each class counting the same (Zou et al., ECCV 2018)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.config.types import Fraction, NonNegative
from graft.terms.base import Term, TrainStep
from graft.terms.requirements import check_at_least


def balanced(labels: Tensor, num_classes: int) -> Tensor:
    """Weights `(B,)` that sum to 1, and to the same for every class that is there."""
    counts = torch.bincount(labels, minlength=num_classes)
    return 1 / (counts[labels] * (counts > 0).sum())


class SelfTraining(Term):
    """Cross entropy to the predicted class of target samples whose probability reaches a threshold."""

    needs_multiclass = True
    domains = ("target",)
    needs_inputs = False

    def __init__(self, weight: NonNegative = 1.0, threshold: Fraction = 0.9) -> None:
        super().__init__()
        check_at_least("self_training.weight", weight, 0)
        self.weight = weight
        self.threshold = threshold

    def forward(self, step: TrainStep) -> Tensor:
        """The cross entropy, 0 where no sample is sure."""
        logits = step.logits["target"]
        confidence, labels = logits.detach().softmax(dim=1).max(dim=1)
        sure = confidence >= self.threshold
        if not sure.any():
            return logits.sum() * 0
        losses = F.cross_entropy(logits[sure], labels[sure], reduction="none")
        return (losses * balanced(labels[sure], logits.shape[1])).sum()
