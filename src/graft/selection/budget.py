"""The checkpoint that cross-validation on the training labels chooses: no further label is used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graft.data.folds import grouped_folds
from graft.data.splits import stratified_folds
from graft.selection.base import SelectionRule
from graft.tasks.base import LOWER_IS_BETTER, Task

FOLDS = 5
ENOUGH = 5  # labels a class for FOLDS folds
MEANS = ("acc", "mae", "loss")  # metrics that a single sample has


@dataclass(frozen=True)
class Choice:
    """An epoch and what every fold reads at each validated epoch."""

    epochs: Sequence[int]  # (E,) that were validated, from 0
    values: Tensor  # (F, E)
    epoch: int  # the chosen one
    seconds: float  # that training the folds took

    @property
    def folds(self) -> list[float]:
        """What the folds read at the chosen epoch `(F,)`."""
        return self.values[:, self.epochs.index(self.epoch)].tolist()


class Budget(SelectionRule):
    """The epoch with the best mean over folds of the target's training labels; no validation label is looked at.

    The last epoch stays unless another one gains more than one standard error over the folds. With at least ENOUGH
    labels a class there are FOLDS stratified folds; with fewer, and a backbone that stays frozen, every label is left
    out once; else nothing is held out and the last epoch is tested.
    """

    name = "budget"
    holds_out = True

    def __init__(self, metric: str | None = None) -> None:
        self.followed = metric  # None: the task's main one
        self.held_out: list[Tensor] = []  # indices of each fold's training samples that validate
        self.note = ""  # how labels are held out, or why none are
        self.choice: Choice | None = None  # once all folds are trained

    def plan(self, labels: Tensor, frozen: bool, seed: int, groups: Tensor | None = None) -> None:
        """Divide the training labels into folds; `frozen` says that the backbone stays as it is.

        Samples of one of the `groups` `(N,)`, such as a patient, are in one fold.
        """
        has_classes = labels.ndim == 1 and not labels.is_floating_point()
        strata = labels if has_classes else torch.zeros(len(labels), dtype=torch.int64)
        per_class = len(labels) // (len(labels.unique()) if has_classes else FOLDS)
        unit = f"{per_class} label{'s' * (per_class != 1)} a class" if has_classes else f"{len(labels)} labels"
        number = None if groups is None else len(groups.unique())
        if number is not None and number < FOLDS:
            self.note = f"{unit} in {number} groups: too few to hold some out, the last epoch is tested"
        elif per_class >= ENOUGH or (groups is not None and per_class > 1 and frozen):
            grouped = "" if number is None else f" of {number} groups"
            self.held_out = (
                stratified_folds(strata, FOLDS, seed) if groups is None else grouped_folds(strata, groups, FOLDS, seed)
            )
            self.note = f"{unit}: {FOLDS} stratified folds{grouped}"
        elif per_class > 1 and frozen:
            self.held_out = list(torch.arange(len(labels)).split(1))
            self.note = f"{unit} and a frozen backbone: each of {len(labels)} labels is left out once"
        else:
            why = "" if per_class == 1 else " and a backbone that trains"
            self.note = f"{unit}{why}: too few to hold some out, the last epoch is tested"

    def metric_of(self, task: Task) -> str:
        """The validation metric of a fold; of folds of one sample one that a single sample has."""
        wanted = self.followed or task.main_metric
        return wanted if wanted in MEANS or len(self.held_out) == FOLDS else "loss"

    def monitor(self, tasks: Mapping[str, Task]) -> str | None:
        """`selection/budget`; None where no label is held out."""
        return f"selection/{self.name}" if self.held_out else None

    def higher_is_better(self, tasks: Mapping[str, Task]) -> bool:
        """As of the metric that the folds are validated by."""
        task = tasks["target"]
        metric = self.metric_of(task)
        return task.higher_is_better if metric == task.main_metric else metric not in LOWER_IS_BETTER

    def choose(self, epochs: Sequence[int], values: Tensor, higher_is_better: bool, seconds: float) -> None:
        """Decide by what the folds read `(F, E)` at the validated epochs `(E,)`, the last of which is the default."""
        self.choice = Choice(epochs, values, epochs[clear_gain(values if higher_is_better else -values)], seconds)

    def value_at(self, epoch: int) -> float | None:
        """The mean over folds after an epoch."""
        if self.choice is None or epoch not in self.choice.epochs:
            return None
        return float(self.choice.values[:, self.choice.epochs.index(epoch)].mean())

    def may_choose(self, epoch: int) -> bool:
        """Whether it is the chosen epoch."""
        return self.choice is None or epoch == self.choice.epoch


def clear_gain(values: Tensor) -> int:
    """The column of `(F, E)` with the best mean, or the last one where the gain is within one standard error."""
    gains = (values - values[:, -1:]).nan_to_num(nan=-torch.inf)
    best = int(gains.mean(dim=0).argmax())
    error = gains[:, best].std() / len(gains) ** 0.5
    return best if gains[:, best].mean() > error else values.shape[1] - 1
