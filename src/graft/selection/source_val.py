"""The checkpoint with the best validation metric of the source."""

from collections.abc import Mapping

from graft.tasks.base import Task


class SourceValidation:
    """The best source validation metric: no target label is used."""

    name = "source_val"
    domain = "source"

    def __init__(self, metric: str | None = None) -> None:
        self.metric = metric  # null: the task's main metric

    def monitor(self, tasks: Mapping[str, Task]) -> str | None:
        """Name of the metric that is followed."""
        return f"val/source/{self.metric or tasks['source'].main_metric}"
