"""Folds of cross-validation: which samples each of them tests, whatever is trained on the others."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from graft.data.samples import generator
from graft.data.splits import between_times
from graft.errors import GraftError

Evaluation = Literal["kfold", "repeated", "nested", "leave_one_group_out"]


@dataclass(frozen=True)
class Fold:
    """The fold that a run tests: its number, from 0, of how many."""

    evaluation: Evaluation
    number: int
    folds: int


def grouped_folds(strata: Tensor, groups: Tensor, folds: int, seed: int) -> list[Tensor]:
    """Indices of each fold's samples: classes of `strata` `(N,)` spread evenly, samples of one group in one fold.

    The largest groups go first, each to the fold that has the least of its classes. sklearn's StratifiedGroupKFold
    balances as well, and takes 36 s where this takes 0.6 s (60,000 samples of 100 classes in 20,000 groups).
    """
    numbers = np.unique(groups.numpy(), return_inverse=True)[1]
    classes = np.unique(strata.numpy(), return_inverse=True)[1]
    members = np.zeros((numbers.max() + 1, classes.max() + 1))
    np.add.at(members, (numbers, classes), 1)
    sizes, weights = members.sum(axis=1), members / members.sum(axis=0) ** 2  # classes count by their shares
    shuffled = torch.randperm(len(members), generator=generator(seed, "folds")).numpy()
    chosen, filled = np.empty(len(members), dtype=np.int64), np.zeros((folds, members.shape[1]))
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        present = filled @ weights[group]
        least = np.flatnonzero(present <= present.min() * (1 + 1e-9))
        chosen[group] = fold = least[filled[least].sum(axis=1).argmin()]
        filled[fold] += members[group]
    of_sample = torch.from_numpy(chosen[numbers])
    return [(of_sample == fold).nonzero().flatten() for fold in range(folds)]


def time_folds(times: Tensor, folds: int) -> list[tuple[Tensor, Tensor]]:
    """Indices of all earlier samples and of the fold's own, for each fold: rolling origin, equal times together.

    The samples are cut into `folds + 1` parts of about one size, of which the earliest is never tested.
    """
    order = times.argsort(stable=True)
    sizes = [round(len(times) * part / (folds + 1)) for part in range(1, folds + 1)]
    ends = [*(between_times(times[order], size, len(times)) for size in sizes), len(times)]
    return [(order[:begin].sort().values, order[begin:end].sort().values) for begin, end in pairwise(ends)]


def group_folds(values: Sequence[Hashable]) -> list[tuple[Hashable, Tensor]]:
    """Each group, in the order of its name, and the indices of its samples."""
    places: dict[Hashable, list[int]] = {}
    for index, value in enumerate(values):
        places.setdefault(value, []).append(index)
    return [(value, torch.tensor(places[value])) for value in sorted(places, key=str)]


def check_classes_fill(labels: Tensor, groups: Tensor | None, names: Sequence[str], folds: int, unit: str) -> None:
    """Raise GraftError where a class has too few samples, or groups of them, for each fold to get one."""
    owners = range(len(labels)) if groups is None else groups.tolist()
    counts = Counter(label for label, _ in set(zip(labels.tolist(), owners, strict=True)))
    rarest = min(counts, key=lambda label: (counts[label], label))
    if counts[rarest] < folds:
        fewer = f"Use folds={counts[rarest]} or less" if counts[rarest] > 1 else "No number of folds can do that"
        raise GraftError(
            f"folds={folds}: every fold needs the class {names[rarest]!r}, of which there are only "
            f"{counts[rarest]:,} {unit}. {fewer}"
        )
