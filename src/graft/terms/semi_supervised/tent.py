"""TENT: predictions get surer by BatchNorm's scale, shift and statistics alone (Wang et al., ICLR 2021)."""

from torch import Tensor

from graft.config.types import NonNegative
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.entropy import entropies
from graft.terms.requirements import check_classes


class Tent(Term):
    """Mean entropy of the target's predictions. With `strategy=norm_only strategy.train_head=false` it is TENT.

    It adapts on the target's training samples, so that test samples are new to it. Raises GraftError without classes.
    """

    needs_multiclass = True
    domains = ("target",)
    needs_inputs = False

    def __init__(self, weight: NonNegative = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def check(self, context: TermContext) -> None:
        """GraftError without classes."""
        check_classes(context, "tent")

    def forward(self, step: TrainStep) -> Tensor:
        """The entropy."""
        return entropies(step.logits["target"]).mean()
