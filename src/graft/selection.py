"""Named rules that choose the checkpoint which is tested."""

import math
from collections.abc import Mapping

from graft.errors import GraftError
from graft.tasks import Task


class TargetValidation:
    """The best target validation metric; uses target labels, so it is an oracle where the target is unlabelled."""

    name = "target_val"
    domain = "target"

    def monitor(self, tasks: Mapping[str, Task]) -> str | None:
        """Name of the metric that is followed."""
        return f"val/target/{tasks['target'].main_metric}"


class SourceValidation:
    """The best source validation metric: no target label is used."""

    name = "source_val"
    domain = "source"

    def monitor(self, tasks: Mapping[str, Task]) -> str | None:
        """Name of the metric that is followed."""
        return f"val/source/{tasks['source'].main_metric}"


class Last:
    """The last epoch's weights: nothing is selected."""

    name = "last"
    domain = None

    def monitor(self, tasks: Mapping[str, Task]) -> str | None:
        """Nothing is followed."""
        return None


SelectionRule = TargetValidation | SourceValidation | Last


def require_domain(rule: SelectionRule, domains: tuple[str, ...]) -> None:
    """Refuse a rule whose domain has no data."""
    if rule.domain is not None and rule.domain not in domains:
        raise GraftError(
            f"selection={rule.name} needs {rule.domain} data, but the run has {', '.join(domains)} only. "
            "Use selection=target_val or selection=last."
        )


def rank(value: float, higher_is_better: bool) -> float:
    """A number that is larger for a better value; not a number is the worst."""
    return -math.inf if math.isnan(value) else value if higher_is_better else -value
