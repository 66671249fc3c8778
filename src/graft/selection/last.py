"""The last checkpoint."""

from collections.abc import Mapping

from graft.tasks.base import Task


class Last:
    """The last epoch's weights: nothing is selected."""

    name = "last"
    domain = None

    def monitor(self, tasks: Mapping[str, Task]) -> str | None:
        """Nothing is followed."""
        return None
