"""FixMatch: a sure prediction of a weak view is the label of a strong one (Sohn et al., NeurIPS 2020)."""

import torch.nn.functional as F
from torch import Tensor

from graft.config.types import Fraction, NonNegative
from graft.errors import GraftError
from graft.heads.base import seen_by
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.requirements import check_at_least


class FixMatch(Term):
    """Cross entropy of the strong view's prediction to the batch's own, where that reaches a threshold; 0 elsewhere.

    The batch as it trains, with `data.augment`, is the weak view. Target samples need no labels.
    """

    needs_multiclass = True
    domains = ("target",)
    views = ("strong",)

    def __init__(self, weight: NonNegative = 1.0, threshold: Fraction = 0.95) -> None:
        super().__init__()
        check_at_least("fixmatch.weight", weight, 0)
        self.weight = weight
        self.threshold = threshold

    def prepare(self, context: TermContext) -> None:
        """Note the network, which has to see the strong view too."""
        if context.num_classes is None:
            raise GraftError(
                "term.fixmatch takes predicted classes as labels. Use task=multiclass with data that have classes, or "
                "leave the term out."
            )
        self._network = (context.backbone, context.target_head)  # in a tuple, so that they are no parts of this module

    def forward(self, step: TrainStep) -> Tensor:
        """The mean over all samples of the batch, as in the paper."""
        backbone, head = self._network
        confidence, labels = step.logits["target"].detach().softmax(dim=1).max(dim=1)
        strong = head(seen_by(head, backbone, step.batch["target"].views["strong"]))
        return (F.cross_entropy(strong, labels, reduction="none") * (confidence >= self.threshold)).mean()
