"""The checkpoint whose predictions on the target are the surest."""

from collections.abc import Mapping

from torch import Tensor
from torch.distributions import Bernoulli, Categorical

from graft.errors import GraftError
from graft.selection.base import SelectionRule
from graft.tasks.base import Task
from graft.tasks.metrics import Mean


class MeanEntropy(Mean):
    """Mean entropy of predicted classes in nats; of one output, that of yes or no."""

    higher_is_better = False

    def update(self, domain: str, features: Tensor, logits: Tensor) -> None:  # type: ignore[override]
        """Add a batch by its logits `(B, K)`."""
        logits = logits.float()
        predicted = Bernoulli(logits=logits[:, 0]) if logits.shape[1] == 1 else Categorical(logits=logits)
        super().update(predicted.entropy().sum(), len(logits))


class Entropy(SelectionRule):
    """The lowest mean entropy of the target's validation predictions: no label is used (Morerio et al., ICLR 2018)."""

    name = "entropy"
    domains = ("target",)
    uses_target_labels = False

    def metric(self) -> Mean:
        """The mean entropy."""
        return MeanEntropy()

    def monitor(self, tasks: Mapping[str, Task]) -> str | None:
        """`selection/entropy`; GraftError for a task without one class a sample."""
        if (task := tasks["target"]).label_kind != "classes":
            raise GraftError(
                f"selection=entropy with task={task.name}: it needs one class a sample. Use selection=target_val, "
                "source_val or last."
            )
        return super().monitor(tasks)
