"""Splits by seed and label budgets: stratified, and with copies of one image on one side."""

import torch
from torch import Tensor

from graft.data.domain import generator
from graft.errors import GraftError


def stratified_split(
    labels: Tensor, sizes: dict[str, float | int], seed: int, groups: Tensor | None = None
) -> dict[str, Tensor]:
    """Indices of each named split, and of `train`, which gets the rest; classes keep their shares.

    `sizes` are fractions of the whole (below 1) or numbers of samples. Samples of one group (copies of one image) stay
    together, with the class of the first of them, so splits may be off by a few samples where there are copies.
    """
    members: dict[int, list[int]] = {}
    for index, group in enumerate(range(len(labels)) if groups is None else groups.tolist()):
        members.setdefault(group, []).append(index)
    shuffled = torch.randperm(len(members), generator=generator(seed, "split")).tolist()
    grouped, classes = list(members.values()), labels.tolist()
    queues: dict[int, list[list[int]]] = {label: [] for label in sorted(set(classes))}
    for position in shuffled:
        queues[classes[grouped[position][0]]].append(grouped[position])
    totals = torch.tensor([sum(len(group) for group in queue) for queue in queues.values()])
    splits = {}
    for name, size in sizes.items():
        quotas = _quotas(totals, round(size * len(labels)) if size < 1 else int(size))
        splits[name] = [i for queue, quota in zip(queues.values(), quotas, strict=True) for i in _take(queue, quota)]
    rest = [index for queue in queues.values() for group in queue for index in group]
    return {name: torch.tensor(sorted(index), dtype=torch.int64) for name, index in {"train": rest, **splits}.items()}


def split_off(
    labels: Tensor, sizes: dict[str, float], seed: int, groups: Tensor, *, key: str, origin: str, noun: str
) -> dict[str, Tensor]:
    """`stratified_split` of a domain's own samples; GraftError where they are too few for a split.

    Messages name the config's `key`, where the samples come from, and what they are called.
    """
    splits = stratified_split(labels, sizes, seed, groups)
    if empty := [name for name, index in splits.items() if len(index) == 0]:
        raise GraftError(
            f"{origin}: {len(labels)} {noun} are too few for a {empty[0]} split. "
            f"Add {noun}, or raise {key}.{empty[0]}_fraction."
        )
    return splits


def label_budget(labels: Tensor, per_class: int, seed: int, classes: tuple[str, ...], key: str) -> Tensor:
    """Indices of `per_class` random samples of every class; a larger budget contains a smaller one of the same seed."""
    chosen = []
    for label, name in enumerate(classes):
        members = (labels == label).nonzero().squeeze(1)
        if len(members) < per_class:
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


def _take(queue: list[list[int]], quota: int) -> list[int]:
    """Take groups off the queue while they fit into the quota; one group of a class always stays for training."""
    taken, kept = [], []
    for position, group in enumerate(queue):
        others = len(kept) + len(queue) - position - 1
        if others and len(group) <= quota:
            taken += group
            quota -= len(group)
        else:
            kept.append(group)
    queue[:] = kept
    return taken
