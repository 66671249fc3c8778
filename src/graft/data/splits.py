"""Splits by seed, group or time, and label budgets: stratified, and with copies of one sample on one side."""

import re
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from graft.data.samples import Samples, generator
from graft.errors import GraftError


def stratified_split(
    labels: Tensor, sizes: dict[str, float | int], seed: int, groups: Tensor | None = None, large_groups: bool = False
) -> dict[str, Tensor]:
    """Indices of each named part, and of `train`, which gets the rest; classes keep their shares.

    `sizes` are fractions of the whole (below 1) or numbers of samples. Samples of one group (copies of one image) stay
    together, with the class of the first of them, so splits may be off by a few samples where there are copies.
    `large_groups` may be larger than a class's share of a split, which is then as near to its size as groups allow.
    """
    if groups is None:
        return split_of_single_samples(labels, sizes, seed)
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(index)
    shuffled = torch.randperm(len(members), generator=generator(seed, "split")).tolist()
    grouped, classes = list(members.values()), labels.tolist()
    queues: dict[int, list[list[int]]] = {label: [] for label in sorted(set(classes))}
    for position in shuffled:
        queues[classes[grouped[position][0]]].append(grouped[position])
    totals = torch.tensor([sum(len(group) for group in queue) for queue in queues.values()])
    parts: dict[str, list[int]] = {}
    for name, size in sizes.items():
        quotas = _quotas(totals, round(size * len(labels)) if size < 1 else int(size))
        parts[name], over = [], 0
        for queue, quota in zip(queues.values(), quotas, strict=True):
            found = _take(queue, quota + over, large_groups)
            over = quota + over - len(found) if large_groups else 0
            parts[name] += found
    rest = [index for queue in queues.values() for group in queue for index in group]
    return {name: torch.tensor(sorted(part), dtype=torch.int64) for name, part in {"train": rest, **parts}.items()}


def split_of_single_samples(labels: Tensor, sizes: dict[str, float | int], seed: int) -> dict[str, Tensor]:
    """The same without groups: of a shuffled class the first samples, one of which always stays for training."""
    shuffled = torch.randperm(len(labels), generator=generator(seed, "split"))
    queues = [shuffled[labels[shuffled] == label] for label in labels.unique()]
    totals = torch.tensor([len(queue) for queue in queues])
    parts: dict[str, list[Tensor]] = {}
    for name, size in sizes.items():
        quotas = _quotas(totals, round(size * len(labels)) if size < 1 else int(size))
        taken = [min(quota, max(len(queue) - 1, 0)) for queue, quota in zip(queues, quotas, strict=True)]
        parts[name] = [queue[:number] for queue, number in zip(queues, taken, strict=True)]
        queues = [queue[number:] for queue, number in zip(queues, taken, strict=True)]
    return {name: torch.cat(part).sort().values for name, part in {"train": queues, **parts}.items()}


def stratified_folds(strata: Tensor, folds: int, seed: int) -> list[Tensor]:
    """Indices of each fold's samples; each class of `strata` `(N,)` is spread evenly."""
    shuffled = torch.randperm(len(strata), generator=generator(seed, "folds"))
    by_class = shuffled[strata[shuffled].argsort(stable=True)]
    return [by_class[first::folds].sort().values for first in range(folds)]


def others(samples: int, indices: Tensor) -> Tensor:
    """Indices of all but those `(M,)` of a number of samples."""
    rest = torch.ones(samples, dtype=torch.bool)
    rest[indices] = False
    return rest.nonzero().flatten()


def merged_groups(groupings: Sequence[Tensor]) -> Tensor:
    """Group number `(N,)` of each sample; samples that share a group in any of the groupings `(N,)` share one."""
    joined = groupings[0]
    for other in groupings[1:]:
        size = int(joined.max()) + 1
        numbers = connected(joined.numpy(), other.numpy() + size, size + int(other.max()) + 1)
        joined = torch.from_numpy(numbers.astype(np.int64))[joined]
    return joined


def connected(first: np.ndarray, second: np.ndarray, number: int) -> np.ndarray:
    """Group number `(number,)` of each thing; those that a pair of `first` and `second` `(P,)` links share one."""
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(number, number))
    return connected_components(graph, directed=False)[1]


def group_values(samples: Samples, wanted: str, key: str) -> list[Hashable]:
    """What each sample's group is: the value in the column `wanted`, or what that expression finds in a file's path.

    Raises GraftError for a column that is not there, and for a file in which the expression finds nothing.
    """
    if wanted in samples.columns:
        values = samples.columns[wanted]
        return [("", index) if value is None else value for index, value in enumerate(values)]
    columns = ", ".join(samples.columns)
    if columns:
        raise GraftError(f"{key}={wanted}: there is no such column. Columns: {columns}.")
    try:
        found = [re.search(wanted, place) for place in samples.places]
    except re.error as error:
        raise GraftError(f"{key}={wanted}: this is no regular expression ({error}).") from None
    matches = [match for match in found if match is not None]
    if len(matches) < len(found):
        raise GraftError(
            f"{key}={wanted}: it finds nothing in {samples.places[found.index(None)]}. Give a regular expression whose "
            rf"first group is what belongs together, such as '(patient\d+)'."
        )
    return [match[1] if match.re.groups else match[0] for match in matches]


def times_of(samples: Samples, wanted: str, key: str) -> Tensor:
    """Times float64 `(N,)` in the column `wanted`, the config's `key`; GraftError for what is no number and no date."""
    if wanted not in samples.columns:
        columns = ", ".join(samples.columns) or "none"
        raise GraftError(f"{key}={wanted}: there is no such column. Columns: {columns}.")
    times = []
    for place, value in zip(samples.places, samples.columns[wanted], strict=True):
        try:
            times.append(float(value))
        except (TypeError, ValueError):
            try:
                times.append(np.datetime64(str(value).strip().rstrip("Z"), "us").astype(np.int64) / 1e6)
            except ValueError:
                raise GraftError(
                    f"{key}={wanted}: {place}: {value!r} is neither a number nor a date such as 2024-02-29 or "
                    "2024-02-29T12:00:00."
                ) from None
    return torch.tensor(times, dtype=torch.float64)


def time_split(times: Tensor, sizes: Mapping[str, float | int]) -> dict[str, Tensor]:
    """Indices of each split: the latest are the test split, those before them validation; equal times stay together."""
    order = times.argsort(stable=True)
    end, indices = len(times), {}
    for name in ("test", "val"):
        if name in sizes:
            size = sizes[name]
            begin = end - (round(size * len(times)) if size < 1 else int(size))
            begin = between_times(times[order], max(begin, 0), end)
            indices[name] = order[begin:end].sort().values
            end = begin
    return {"train": order[:end].sort().values, **indices}


def between_times(times: Tensor, begin: int, end: int) -> int:
    """The first place from `begin` on where sorted times change; before it where there is none up to `end`."""
    later = earlier = begin
    while 0 < later < end and times[later] == times[later - 1]:
        later += 1
    while 0 < earlier < len(times) and times[earlier] == times[earlier - 1]:
        earlier -= 1
    return later if later < end or begin == end else earlier


def label_budget(labels: Tensor, per_class: int, seed: int, classes: tuple[str, ...], key: str) -> Tensor:
    """Indices of `per_class` random samples of every class that has some; a larger budget contains a smaller one.

    Which classes may have none has been checked as the samples were read. GraftError for a class with too few.
    """
    chosen = []
    for label, name in enumerate(classes):
        members = (labels == label).nonzero().squeeze(1)
        if 0 < len(members) < per_class:
            raise GraftError(
                f"{key}={per_class}: class {name!r} has only {len(members)} training samples. "
                f"Use {key}={len(members)} or less, or {key}=null for all labels."
            )
        shuffled = members[torch.randperm(len(members), generator=generator(seed, "budget", label))]
        chosen.append(shuffled[:per_class])
    return torch.cat(chosen).sort().values


def _quotas(totals: Tensor, wanted: int) -> list[int]:
    """How many of each class make up `wanted` samples in the classes' shares, by largest remainder."""
    exact = totals.double() * wanted / totals.sum()
    quotas = exact.floor().long()
    missing = wanted - int(quotas.sum())
    quotas[(exact - quotas).argsort(descending=True, stable=True)[:missing]] += 1
    return quotas.tolist()


def _take(queue: list[list[int]], quota: int, nearest: bool) -> list[int]:
    """Take groups off the queue while they fit into the quota; one group of a class always stays for training.

    With `nearest` also one that goes beyond it, where that is nearer to the quota than nothing.
    """
    taken: list[int] = []
    kept: list[list[int]] = []
    for position, group in enumerate(queue):
        others = len(kept) + len(queue) - position - 1
        if others and (len(group) <= quota or (nearest and len(group) - quota < quota)):
            taken += group
            quota -= len(group)
        else:
            kept.append(group)
    queue[:] = kept
    return taken
