"""The checkpoint with the best validation metric of the target."""

from collections.abc import Mapping

from graft.tasks.base import Task


class TargetValidation:
    """The best target validation metric; uses target labels, so it is an oracle where the target is unlabelled."""

    name = "target_val"
    domain = "target"

    def __init__(self, metric: str | None = None) -> None:
        self.metric = metric  # null: the task's main metric

    def monitor(self, tasks: Mapping[str, Task]) -> str | None:
        """Name of the metric that is followed."""
        return f"val/target/{self.metric or tasks['target'].main_metric}"
