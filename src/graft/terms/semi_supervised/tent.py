"""TENT: predictions of the target become surer (Wang et al., ICLR 2021)."""

from torch import Tensor

from graft.config.types import NonNegative
from graft.terms.base import Term, TrainStep
from graft.terms.requirements import check_at_least
from graft.terms.semi_supervised.information_maximisation import entropy


class TENT(Term):
    """Mean entropy of the target's predictions; the paper moves normalisation layers alone: `strategy=norm_only`."""

    needs_multiclass = True
    domains = ("target",)
    needs_inputs = False

    def __init__(self, weight: NonNegative = 1.0) -> None:
        super().__init__()
        check_at_least("tent.weight", weight, 0)
        self.weight = weight

    def forward(self, step: TrainStep) -> Tensor:
        """The entropy."""
        return entropy(step.logits["target"].softmax(dim=1)).mean()
