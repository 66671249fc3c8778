"""What a selection rule is: the validation metric that chooses the checkpoint."""

import math
from collections.abc import Mapping

from graft.errors import GraftError
from graft.selection.last import Last
from graft.selection.source_val import SourceValidation
from graft.selection.target_val import TargetValidation
from graft.tasks.base import LOWER_IS_BETTER, Task

SelectionRule = TargetValidation | SourceValidation | Last


def check_domain(rule: SelectionRule, domains: tuple[str, ...]) -> None:
    """Refuse a rule whose domain has no data."""
    if rule.domain is not None and rule.domain not in domains:
        raise GraftError(
            f"selection={rule.name} needs {rule.domain} data, but the run has {', '.join(domains)} only. "
            "Use selection=target_val or selection=last."
        )


def higher_is_better(monitor: str, tasks: Mapping[str, Task]) -> bool:
    """Whether a monitored metric, such as `val/target/f1`, is better the higher it is."""
    _, domain, metric = monitor.split("/")
    task = tasks[domain]
    return task.higher_is_better if metric == task.main_metric else metric not in LOWER_IS_BETTER


def rank(value: float, higher_is_better: bool) -> float:
    """A number that is larger for a better value; not a number is the worst."""
    return -math.inf if math.isnan(value) else value if higher_is_better else -value
