"""Which classes the two sides have: those that are kept of a domain, and targets whose classes are not the source's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from graft.data.samples import DomainData, Samples, Split
from graft.data.stream import whole
from graft.errors import GraftError, listed

LabelSets = Literal["closed", "partial", "open"]

SHOWN = 10  # classes in a message
UNKNOWN = "unknown"  # what every class that the source lacks is called in an open set


def of_classes(
    splits: Mapping[str, Samples], classes: Sequence[str], kept: Sequence[str], key: str
) -> tuple[dict[str, Samples], tuple[str, ...]]:
    """The samples of some classes, numbered in the order of `classes`; GraftError that names `key` for unknown ones."""
    if unknown := [name for name in kept if name not in classes]:
        raise GraftError(f"{key}: there is no class {unknown[0]!r}. The classes are {', '.join(classes)}.")
    names = tuple(name for name in classes if name in kept)
    if len(names) < 2:
        raise GraftError(f"{key}=[{','.join(kept)}]: at least 2 classes are needed. There are {', '.join(classes)}.")
    number = torch.tensor([names.index(name) if name in names else -1 for name in classes])
    found = {}
    for split, samples in splits.items():
        if samples.labels.ndim > 1:
            raise GraftError(f"{key}: samples with several labels cannot be chosen by class. Set {key}=null.")
        some = samples.take((number[samples.labels] >= 0).nonzero()[:, 0])
        found[split] = replace(some, labels=number[some.labels])
    return found, names


def in_source_classes(target: DomainData, source: DomainData, label_sets: LabelSets) -> DomainData:
    """The target with the source's K classes, matched by name; every class that the source lacks is number K.

    `label_set` keeps the target's own. Raises GraftError where the two sets are not as `label_sets` says.
    """
    key = f"data.label_sets={label_sets}"
    known, own = source.classes, target.classes
    if known is None or own is None or any(split.labels is None or split.labels.ndim > 1 for split in held_out(target)):
        raise GraftError(f"{key}: both sides need one class a sample. Set data.label_sets=closed.")
    private = [name for name in own if name not in known]
    missing = [name for name in known if name not in own]
    if len(private) == len(own):
        raise GraftError(
            f"{key}: source ({listed(known, SHOWN)}) and target ({listed(own, SHOWN)}) have no class in common. "
            "They are matched by name: give both sides the same names."
        )
    if label_sets == "partial" and (private or not missing):
        why = f"the source has no {listed(private, SHOWN)}" if private else "the target lacks no class of the source"
        use = "open task=open_set" if private else "closed"
        raise GraftError(f"{key}: {why}. Use data.label_sets={use}.")
    if label_sets == "open" and not private:
        use = "partial" if missing else "closed"
        raise GraftError(f"{key}: the source has all classes of the target. Use data.label_sets={use}.")
    if label_sets == "open" and UNKNOWN in known:
        raise GraftError(f"{key}: the source has a class {UNKNOWN!r}, which an open set calls all that it lacks.")
    numbers = torch.tensor([known.index(name) if name in known else len(known) for name in own])
    note = f"{label_sets} label sets: "
    note += "; ".join(
        [f"the target has no {listed(missing, SHOWN)}"] * bool(missing)
        + [f"{listed(private, SHOWN)} are not in the source, and count as {UNKNOWN}"] * bool(private)
    )
    train, val, test = (renumbered(split, numbers) for split in (whole(target.train), target.val, target.test))
    return replace(target, train=train, val=val, test=test, classes=known, label_set=own, notes=(*target.notes, note))


def held_out(data: DomainData) -> tuple[Split, Split]:
    """Validation and test, which always have labels."""
    return data.val, data.test


def renumbered(split: Split, numbers: Tensor) -> Split:
    """A split whose labels are those at `numbers` `(K,)`; one without labels as it is."""
    return split if split.labels is None else replace(split, labels=numbers[split.labels])


def in_grown_classes(domains: Mapping[str, DomainData], old: Sequence[str], key: str) -> dict[str, DomainData]:
    """Both sides in the `old` classes and, behind them, those that the target has more, matched by name.

    `label_set` keeps what each side has. Raises GraftError, which names `key`, where the target has no class that is
    new, or the source one that is in neither.
    """
    own = domains["target"].classes or ()
    new = [name for name in own if name not in old]
    if not new:
        raise GraftError(
            f"{key}: the target has no class that is new: all of {listed(own, SHOWN)} are among that run's "
            f"{listed(old, SHOWN)}. Give data with others, or train on with the head as it is: head.grow=false."
        )
    classes = (*old, *new)
    of_source = (domains["source"].classes or ()) if "source" in domains else ()
    if unknown := [name for name in of_source if name not in classes]:
        raise GraftError(
            f"{key}: the source has {listed(unknown, SHOWN)}, neither among that run's classes "
            f"({listed(old, SHOWN)}) nor the target's ({listed(own, SHOWN)}). Names must agree; data.source_classes "
            "keeps some of the source's."
        )
    note = f"new classes: {listed(new, SHOWN)}, beside {listed(old, SHOWN)} of head.weights"
    notes = {"target": (note, *alike_notes(old, new))}
    return {name: renamed(data, classes, notes.get(name, ())) for name, data in domains.items()}


def alike_notes(old: Sequence[str], new: Sequence[str]) -> tuple[str, ...]:
    """That a new class has the name of an old one but for the case, where one has."""
    folded = {name.casefold(): name for name in old}
    return tuple(
        f"the new class {name!r} and the old {folded[name.casefold()]!r} differ in case alone, and are different here"
        for name in new
        if name.casefold() in folded
    )


def renamed(data: DomainData, classes: tuple[str, ...], notes: Sequence[str]) -> DomainData:
    """A domain whose labels are places in `classes`, which hold all of its own."""
    own = data.classes or ()
    numbers = torch.tensor([classes.index(name) for name in own])
    train, val, test = (renumbered(split, numbers) for split in (whole(data.train), data.val, data.test))
    return replace(data, train=train, val=val, test=test, classes=classes, label_set=own, notes=(*data.notes, *notes))
