"""Minimum Class Confusion: no two classes shall be confused on the target (Jin et al., ECCV 2020)."""

from torch import Tensor

from graft.config.types import NonNegative, Positive
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.entropy import entropies
from graft.terms.processes import gathered_to_learn
from graft.terms.requirements import check_classes


def class_confusion(logits: Tensor, temperature: float) -> Tensor:
    """Mean probability, over classes, of a batch's confusion with other classes; logits `(B, K)`.

    Sure predictions weigh more, with 1 + exp(-entropy), which has no gradient.
    """
    logits = logits / temperature
    weights = 1 + (-entropies(logits.detach())).exp()
    probabilities = logits.softmax(dim=1)
    confusion = probabilities.T @ (weights[:, None] / weights.mean() * probabilities)  # (K, K)
    confusion = confusion / confusion.sum(dim=1, keepdim=True)
    return (confusion.sum() - confusion.trace()) / len(confusion)


class MCC(Term):
    """Confusion of classes in the target's predictions, at a `temperature`; of all processes' samples.

    Raises GraftError without classes.
    """

    needs_multiclass = True
    domains = ("target",)
    needs_inputs = False

    def __init__(self, weight: NonNegative = 1.0, temperature: Positive = 2.5) -> None:
        super().__init__()
        self.weight = weight
        self.temperature = temperature

    def check(self, context: TermContext) -> None:
        """GraftError without classes."""
        check_classes(context, "mcc")

    def forward(self, step: TrainStep) -> Tensor:
        """The confusion."""
        return class_confusion(gathered_to_learn(step.logits["target"]), self.temperature)
