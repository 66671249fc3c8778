"""The checkpoint with the best validation metric of the source."""

from collections.abc import Mapping

from graft.tasks.base import Task


class SourceValidation:
    """The best source validation metric: no target label is used."""

    name = "source_val"
    domain = "source"

    def monitor(self, tasks: Mapping[str, Task]) -> str | None:
        """Name of the metric that is followed."""
        return f"val/source/{tasks['source'].main_metric}"
