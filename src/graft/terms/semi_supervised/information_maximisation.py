"""Information maximisation: every prediction sure, all classes predicted (SHOT-IM; Liang et al., ICML 2020)."""

from torch import Tensor

from graft.config.types import NonNegative
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.entropy import entropies
from graft.terms.processes import several, summed
from graft.terms.requirements import check_classes


def information_loss(logits: Tensor) -> Tensor:
    """Mean entropy of a batch's predictions less the entropy of their mean; logits `(B, K)`, at least -log K.

    The mean is over the batches of all processes.
    """
    if several():
        mean = summed(logits.softmax(dim=1).sum(dim=0, keepdim=True)).log()
        return entropies(logits).mean() - entropies(mean).squeeze(0)
    mean = logits.log_softmax(dim=1).logsumexp(dim=0, keepdim=True)  # log of the mean, up to a constant
    return entropies(logits).mean() - entropies(mean).squeeze(0)


class InformationMaximisation(Term):
    """Entropy of the target's predictions less that of their mean, which keeps all from being one class.

    It takes classes to be about equally frequent in a batch of the target. Raises GraftError without classes.
    """

    needs_multiclass = True
    domains = ("target",)
    needs_inputs = False

    def __init__(self, weight: NonNegative = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def check(self, context: TermContext) -> None:
        """GraftError without classes."""
        check_classes(context, "information_maximisation")

    def forward(self, step: TrainStep) -> Tensor:
        """The difference; it is negative where predictions are sure and various."""
        return information_loss(step.logits["target"])
