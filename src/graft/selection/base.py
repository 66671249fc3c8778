"""What a selection rule is: the validation metric that chooses the checkpoint."""

import math

from graft.errors import GraftError
from graft.selection.last import Last
from graft.selection.source_val import SourceValidation
from graft.selection.target_val import TargetValidation

SelectionRule = TargetValidation | SourceValidation | Last


def check_domain(rule: SelectionRule, domains: tuple[str, ...]) -> None:
    """Refuse a rule whose domain has no data."""
    if rule.domain is not None and rule.domain not in domains:
        raise GraftError(
            f"selection={rule.name} needs {rule.domain} data, but the run has {', '.join(domains)} only. "
            "Use selection=target_val or selection=last."
        )


def rank(value: float, higher_is_better: bool) -> float:
    """A number that is larger for a better value; not a number is the worst."""
    return -math.inf if math.isnan(value) else value if higher_is_better else -value
