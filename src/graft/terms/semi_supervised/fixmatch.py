"""FixMatch: the sure prediction of a weak view is the label of a strong one (Sohn et al., NeurIPS 2020)."""

import torch.nn.functional as F
from torch import Tensor

from graft.config.types import Fraction, NonNegative
from graft.heads.base import seen_by
from graft.inputs.base import join
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.requirements import check_classes


class FixMatch(Term):
    """Cross entropy of the strong view's prediction to the weak view's class, over all target samples.

    Samples whose weak view is less than `threshold` sure count 0. Both views go forward as one batch. Raises GraftError
    without classes.
    """

    needs_multiclass = True
    domains = ("target",)
    views = ("weak", "strong")

    def __init__(self, weight: NonNegative = 1.0, threshold: Fraction = 0.95) -> None:
        super().__init__()
        self.weight = weight
        self.threshold = threshold

    def check(self, context: TermContext) -> None:
        """GraftError without classes."""
        check_classes(context, "fixmatch")

    def prepare(self, context: TermContext) -> None:
        """Keep the network at hand."""
        self._network = (context.backbone, context.target_head)  # in a tuple, so that they are no parts of this module

    def forward(self, step: TrainStep) -> Tensor:
        """The mean over the batch."""
        backbone, head = self._network
        views = step.batch["target"].views
        weak, strong = head(seen_by(head, backbone, join([views["weak"], views["strong"]]))).chunk(2)
        confidence, classes = weak.detach().softmax(dim=1).max(dim=1)
        return (F.cross_entropy(strong, classes, reduction="none") * (confidence >= self.threshold)).mean()
