"""What a selection rule is: the validation metric that chooses the checkpoint."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, SupportsFloat

from torchmetrics import Metric

from graft.errors import GraftError
from graft.tasks.base import LOWER_IS_BETTER, Task

if TYPE_CHECKING:
    from graft.data.module import TransferDataModule
    from graft.selection.candidate import Candidate

LOGGED = ("val/", "selection/")  # how names of validation metrics begin: those of domains, and a rule's own


class SelectionRule:
    """Names the validation metric whose best epoch is tested: a domain's, or one that the rule brings along."""

    name: str
    domains: tuple[str, ...] = ()  # whose validation data it looks at; none: the last epoch is tested
    uses_target_labels = True  # False where it looks at no label of the target
    holds_out = False  # whether it trains on parts of the target's training labels and validates on the others
    higher_score_is_better = True  # of a rule with a score()

    def metric(self) -> Metric | None:
        """A metric of the rule, logged as `selection/<name>`; its `higher_is_better` says which way is better.

        Validation calls `update(domain, features, logits)` with every batch `(B, D)` and `(B, K)` of `domains`.
        """
        return None

    def score(self, candidate: "Candidate") -> float:
        """In the place of a metric: a number for the network that validation sees, logged as `selection/<name>`."""
        raise NotImplementedError

    @property
    def has_score(self) -> bool:
        """Whether the rule brings a score()."""
        return type(self).score is not SelectionRule.score

    def check(self, data: "TransferDataModule") -> None:
        """GraftError for data that the rule cannot judge a network by, before anything is trained."""

    def value_at(self, epoch: int) -> float | None:
        """What is known of an epoch before it is trained, logged as `selection/<name>`; None where nothing is."""
        return None

    def may_choose(self, epoch: int) -> bool:
        """Whether the weights after an epoch, from 0, may be tested."""
        return True

    def monitor(self, tasks: Mapping[str, Task]) -> str | None:
        """Name of the metric that is followed; None where nothing is selected. GraftError where a task has none."""
        return f"selection/{self.name}" if self.domains else None

    def higher_is_better(self, tasks: Mapping[str, Task]) -> bool:
        """Whether more of what is followed is better."""
        if (own := self.metric()) is not None:
            return bool(own.higher_is_better)
        if self.has_score:
            return self.higher_score_is_better
        monitor = self.monitor(tasks)
        if monitor is None:
            return True
        _, domain, metric = monitor.split("/")
        task = tasks[domain]
        return task.higher_is_better if metric == task.main_metric else metric not in LOWER_IS_BETTER


class ClassPredictions(SelectionRule):
    """Looks at the classes that are predicted for the target, and at no label of it."""

    domains: tuple[str, ...] = ("target",)
    uses_target_labels = False

    def monitor(self, tasks: Mapping[str, Task]) -> str | None:
        """`selection/<name>`; GraftError for a task without one class a sample."""
        if (task := tasks["target"]).label_kind != "classes":
            raise GraftError(
                f"selection={self.name} with task={task.name}: it needs one class a sample. Use selection=target_val, "
                "source_val or last."
            )
        return super().monitor(tasks)


class ValidationMetric(SelectionRule):
    """A metric that the task computes on a domain's validation split."""

    followed: str | None = None  # None: the task's main metric

    def __init__(self, metric: str | None = None) -> None:
        self.followed = metric

    def monitor(self, tasks: Mapping[str, Task]) -> str:
        """`val/<domain>/<metric>`."""
        (domain,) = self.domains
        return f"val/{domain}/{self.followed or tasks[domain].main_metric}"


def check_rule(rule: SelectionRule, tasks: Mapping[str, Task]) -> None:
    """GraftError for what is no rule, one whose domain has no data, and one that names no metric or no direction.

    `tasks` are those of the domains that have data.
    """
    kind = f"{type(rule).__module__}.{type(rule).__name__}"
    if not isinstance(rule, SelectionRule) or hasattr(rule, "domain"):
        raise GraftError(
            f"selection: {kind} is no rule. Make it a subclass of graft.selection.base.SelectionRule, with "
            'domains = ("target",) in the place of domain = "target"; see docs/extend/rule.md.'
        )
    missing = [domain for domain in rule.domains if domain not in tasks]
    if missing:
        raise GraftError(
            f"selection={rule.name} needs {missing[0]} data, but the run has {', '.join(tasks)} only. "
            "Use selection=target_val or selection=last."
        )
    own = rule.metric()
    inherited = type(rule).monitor in (SelectionRule.monitor, ClassPredictions.monitor)
    if own is None and not rule.has_score and rule.domains and inherited:
        raise GraftError(f"selection={rule.name}: {kind} follows nothing. Give it monitor(), metric() or score().")
    if own is not None and own.higher_is_better is None:
        raise GraftError(f"selection={rule.name}: {type(own).__name__}.higher_is_better must be True or False.")
    rule.monitor(tasks)  # refuses a task without its metric, before anything is pretrained


def of_validation(metrics: Mapping[str, SupportsFloat]) -> dict[str, float]:
    """Those that validation logs."""
    return {name: float(value) for name, value in metrics.items() if name.startswith(LOGGED)}


def rank(value: float, higher_is_better: bool) -> float:
    """A number that is larger for a better value; not a number is the worst."""
    return -math.inf if math.isnan(value) else value if higher_is_better else -value
