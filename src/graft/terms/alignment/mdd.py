"""Margin Disparity Discrepancy: a second classifier disagrees on the target alone (Zhang et al., ICML 2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.config.types import NonNegative
from graft.terms.alignment.mcd import new_classifier
from graft.terms.alignment.reversal import ramp, reverse
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.requirements import check_shared_classes


def disagreement(logits: Tensor, classes: Tensor) -> Tensor:
    """Mean of -log(1 - p), p the probability `(B,)` that logits `(B, K)` give to `classes` `(B,)`."""
    others = torch.ones_like(logits, dtype=torch.bool).scatter(1, classes[:, None], False)
    kept = logits.masked_fill(~others, -torch.inf)
    return (logits.logsumexp(dim=1) - kept.logsumexp(dim=1)).mean()


class MDD(Term):
    """A second classifier's loss: `margin` times its cross entropy to the head's classes on the source, and its
    disagreement with these on the target.

    The features get its gradient reversed, with a strength that rises from 0 to `reversal` over the run; the head gets
    none. Raises GraftError without classes or with a head for each domain.
    """

    needs_multiclass = True
    domains = ("source", "target")
    needs_inputs = False
    aligns = True

    def __init__(self, weight: NonNegative = 1.0, margin: NonNegative = 4.0, reversal: NonNegative = 0.1) -> None:
        super().__init__()
        self.weight = weight
        self.margin = margin
        self.reversal = reversal

    def check(self, context: TermContext) -> None:
        """GraftError without classes or with a head for each domain."""
        check_shared_classes(context, "mdd")

    def prepare(self, context: TermContext) -> None:
        """Make the second classifier: one like the head's, with random weights of its own."""
        self.check(context)
        self.head = new_classifier(context.target_head)

    def forward(self, step: TrainStep) -> Tensor:
        """The second classifier's loss."""
        strength = self.reversal * ramp(step.progress)
        source, target = (self.head(reverse(step.embedded[domain], strength)) for domain in ("source", "target"))
        agreement = F.cross_entropy(source, step.logits["source"].argmax(dim=1))
        return self.margin * agreement + disagreement(target, step.logits["target"].argmax(dim=1))
