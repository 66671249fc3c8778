"""What terms share that make source and target embeddings alike."""

from typing import Any

from torch import Tensor, nn

from graft.errors import GraftError
from graft.heads.base import classifier_of, has_bottleneck
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.requirements import check_at_least


class Alignment(Term):
    """A term on the embeddings of a labelled source and a target whose labels it never looks at."""

    domains = ("source", "target")
    needs_inputs = False
    aligns = True
    least = 1  # samples of a domain in a batch; without them there is no value

    def __init__(self, name: str, weight: float) -> None:
        super().__init__()
        check_at_least(f"{name}.weight", weight, 0)
        self.weight = weight

    def pair(self, step: TrainStep) -> tuple[Tensor, Tensor] | None:
        """Embeddings `(B, E)` of source and target; None where one has fewer samples than it takes."""
        pair = step.embeddings["source"], step.embeddings["target"]
        return pair if min(map(len, pair)) >= self.least else None


def check_one_classifier(context: TermContext, name: str, what: str) -> int:
    """How many classes one head tells apart on both domains; GraftError without classes or with two heads."""
    if context.num_classes is None or len(context.heads) > 1:
        raise GraftError(
            f"term.{name} {what}. Use head.sharing=shared and task=multiclass with data that have classes, or leave "
            "the term out."
        )
    return context.num_classes


def embedding_size(context: TermContext) -> int:
    """E of the embeddings `(B, E)`: the bottleneck's width where the target's head has one, else the feature size."""
    head: Any = context.target_head
    if not has_bottleneck(head):
        return context.backbone.feature_size
    return next(module.in_features for module in classifier_of(head).modules() if isinstance(module, nn.Linear))
