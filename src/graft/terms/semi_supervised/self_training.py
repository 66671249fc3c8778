"""Self-training: sure predictions on the target are labels (Zou et al., ECCV 2018, balances the classes)."""

import torch.nn.functional as F
from torch import Tensor

from graft.config.types import Fraction, NonNegative
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.requirements import check_classes


def sure_cross_entropy(logits: Tensor, threshold: float) -> Tensor:
    """Cross entropy to the own class of predictions that are at least `threshold` sure: mean of the classes' means.

    Logits `(B, K)`; 0 where no prediction is sure.
    """
    confidence, classes = logits.detach().softmax(dim=1).max(dim=1)
    kept = F.one_hot(classes, logits.shape[1]) * (confidence >= threshold)[:, None]  # (B, K)
    counts = kept.sum(dim=0)
    means = -(kept * logits.log_softmax(dim=1)).sum(dim=0) / counts.clamp_min(1)
    return means.sum() / (counts > 0).sum().clamp_min(1)


class SelfTraining(Term):
    """Cross entropy of the target's sure predictions to their own class, every class that occurs weighing the same.

    Raises GraftError without classes.
    """

    needs_multiclass = True
    domains = ("target",)
    needs_inputs = False

    def __init__(self, weight: NonNegative = 1.0, threshold: Fraction = 0.9) -> None:
        super().__init__()
        self.weight = weight
        self.threshold = threshold

    def check(self, context: TermContext) -> None:
        """GraftError without classes."""
        check_classes(context, "self_training")

    def forward(self, step: TrainStep) -> Tensor:
        """The classes' mean cross entropy."""
        return sure_cross_entropy(step.logits["target"], self.threshold)
