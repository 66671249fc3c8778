"""MDD: a second classifier that disagrees on the target alone finds nothing to hold on to (Zhang et al., ICML 2019)."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.config.types import NonNegative, Positive
from graft.heads.base import classifier_of
from graft.terms.alignment.adversary import ramp, reversed_gradient
from graft.terms.alignment.base import Alignment, check_one_classifier
from graft.terms.alignment.mcd import reset
from graft.terms.base import TermContext, TrainStep


class MDD(Alignment):
    """Margin disparity discrepancy: the adversary agrees with the classifier on the source and not on the target.

    Its loss is `margin * CE(adversary, prediction)` on the source plus `-log(1 - p(prediction))` on the target; the
    gradient into the embeddings is reversed, with a strength that rises to `reversal` over training.
    """

    needs_multiclass = True

    def __init__(self, weight: NonNegative = 1.0, margin: Positive = 4.0, reversal: Positive = 0.1) -> None:
        super().__init__("mdd", weight)
        self.margin = margin
        self.reversal = reversal

    def check(self, context: TermContext) -> None:
        """GraftError without classes or with a head for each domain."""
        check_one_classifier(context, "mdd", "compares two classifiers over the same classes on both domains")

    def prepare(self, context: TermContext) -> None:
        """Make the adversary: a classifier like the target's, with random weights of its own."""
        self.check(context)
        self.adversary = copy.deepcopy(classifier_of(context.target_head)).requires_grad_(True).train()
        for module in self.adversary.modules():
            reset(module)

    def forward(self, step: TrainStep) -> Tensor:
        """The adversary's loss."""
        strength = self.reversal * ramp(step.progress)
        source, target = (self.adversary(reversed_gradient(step.embeddings[d], strength)) for d in self.domains)
        agreed = F.cross_entropy(source, step.logits["source"].argmax(dim=1))
        return self.margin * agreed + not_predicted(target, step.logits["target"].argmax(dim=1))


def not_predicted(logits: Tensor, classes: Tensor) -> Tensor:
    """Mean of `-log(1 - p)` with p the probability of a class `(B,)` each, from logits `(B, K)`, exact also near 1."""
    others = logits.scatter(1, classes[:, None], -torch.inf)
    return (logits.logsumexp(dim=1) - others.logsumexp(dim=1)).mean()
