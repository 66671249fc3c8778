"""AdaBN: the target is normalised by its own BatchNorm statistics (Li et al., Pattern Recognition 2018)."""

from graft.errors import GraftError
from graft.terms.base import Term, TermContext, TrainStep
from graft.training.normalization import batchnorms


class AdaBN(Term):
    """Adds nothing to the objective: it lets the target's batches through the network, which moves its statistics.

    With `bn=domain_specific` those are the target's alone. Raises GraftError for a backbone without BatchNorm.
    """

    needs_domain_statistics = True
    domains = ("source", "target")

    def check(self, context: TermContext) -> None:
        """GraftError for a backbone without BatchNorm."""
        if not batchnorms(context.backbone):
            raise GraftError(
                f"term.adabn adapts BatchNorm's statistics, and {context.backbone.name} has none. Use a backbone with "
                "BatchNorm (backbone=resnet18, mobilenet_v2, ...), or leave the term out."
            )

    def forward(self, step: TrainStep) -> None:
        """Nothing."""
        return None
