"""The one story of loading: labels, bad samples, copies, leaks, the split, and a report of what became of everything.

A source only reads (graft.data.domain). Everything here is the same for all of them.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from graft.data.boxes import Boxes
from graft.data.folds import Evaluation, Fold, check_classes_fill, group_folds, grouped_folds, time_folds
from graft.data.label_sets import of_classes
from graft.data.samples import (
    HELD_OUT,
    Digests,
    DomainData,
    Raw,
    Report,
    Samples,
    Split,
    group_numbers,
    number_in,
    sha256,
)
from graft.data.splits import (
    group_values,
    merged_groups,
    others,
    stratified_folds,
    stratified_split,
    time_split,
    times_of,
)
from graft.data.target_texts import TargetTexts
from graft.errors import GraftError, listed, printable

if TYPE_CHECKING:
    from graft.data.domain import Domain

CLASSES_SHOWN = 10
OTHER_CLASSES = "of other classes"
LATER = "later than the fold"  # why a fold by time leaves samples out
NUMBERS_SHARE = 0.3  # classes over training samples from which labels that are numbers are probably meant as such


@dataclass(frozen=True)
class Skipped:
    """A sample that cannot be used."""

    split: str
    place: str
    problem: str


@dataclass(frozen=True)
class Usable:
    """What a source has read, with labels as tensors and without the samples that cannot be used."""

    raw: Raw
    splits: dict[str, Samples]
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]
    skipped: list[Skipped]
    near: Mapping[str, Sequence[Any]] | None  # see Domain.near_keys


def usable(domain: "Domain") -> Usable:
    """Read a domain; GraftError for samples that cannot be used, and for labels that leave nothing to learn."""
    raw = domain.read()
    if not len(raw.splits["train"]) and not raw.splits["train"].unread:
        raise GraftError(f"{domain.origin('train')}: there are no {domain.unit} to train on.")
    splits, classes, notes = with_labels(domain, raw)
    splits, skipped = without_bad(domain, splits)
    check_not_empty(domain, splits, skipped)
    check_classes(domain, splits["train"], classes, skipped)
    near = None if domain.split.get("near_duplicates") == "ignore" else domain.near_keys(splits)
    return Usable(raw, splits, classes, notes, skipped, near)


def finish(domain: "Domain", split_seed: int, fold: Fold | None = None) -> DomainData:
    """Read a domain and make splits of it, of which a fold is the test split where one is given.

    Raises GraftError for samples that cannot be used (unless they are to be skipped), for splits without samples, and
    for labels that leave nothing to learn.
    """
    read = usable(domain)
    raw, splits, classes, notes, near = read.raw, read.splits, read.classes, read.notes, read.near
    found = sum(len(one) + len(one.unread) + sum(one.left_out.values()) for one in raw.splits.values())
    fingerprint = fingerprint_of(domain, raw, splits, classes)

    notes += tuple(raw.notes) + copy_notes(domain, splits)
    indices, rule = split_off(domain, splits, classes, split_seed, near, fold)
    whole = splits["train"]
    official, splits = splits, splits | {name: whole.take(index) for name, index in indices.items()}
    notes += leak_notes_after(domain, official, splits)
    if near:
        of_train = near["train"]
        split_off_near = {name: [of_train[i] for i in index.tolist()] for name, index in indices.items()}
        notes += near_notes(domain, splits, {**near, **split_off_near})
    named: Callable[[tuple[str, ...]], tuple[str, ...]] = domain.named
    of_others = 0
    if domain.kept_classes is not None:  # after the split, which is the same with all classes
        before = sum(map(len, splits.values()))
        splits, classes = only_kept_classes(domain, splits, classes, domain.kept_classes)
        named, of_others = tuple, before - sum(map(len, splits.values()))
        fingerprint = sha256([fingerprint.encode(), repr(classes).encode()])
        check_not_empty(domain, splits, read.skipped)
    splits, fields = domain.encode(splits)
    encoded_notes = tuple(fields.pop("notes", ()))
    splits, later = without_bad(domain, splits)
    check_not_empty(domain, splits, later)
    splits, classes = without_lost_classes(splits, classes, raw) if later else (splits, classes)
    skipped = read.skipped + later
    check_classes(domain, splits["train"], classes, skipped)
    notes += absent_labels(splits, classes if classes is None else named(classes))

    left_out = sum((Counter(one.left_out) for one in raw.splits.values()), Counter[str]())
    if of_others:
        left_out[OTHER_CLASSES] = of_others
    if indices and (unused := len(whole) - sum(map(len, indices.values()))):
        left_out[LATER] = unused
    report = Report(
        found=found,
        used={name: len(splits[name]) for name in ("train", "val", "test")},
        left_out=dict(left_out),
        skipped=tuple({"split": bad.split, "sample": bad.place, "reason": bad.problem} for bad in skipped),
        split=rule,
        unit=domain.unit,
    )
    return DomainData(
        **{
            "name": domain.title,
            "classes": classes if classes is None else named(classes),
            "channels": None,
            "fingerprint": fingerprint,
            "modality": domain.modality,
            "reading": domain.reading(),
            "notes": (*skipped_notes(domain, skipped), *notes, *encoded_notes),
            "report": report,
            **{name: as_split(domain, fingerprint, name, samples, indices) for name, samples in splits.items()},
            **fields,
        }
    )


# Labels


def with_labels(domain: "Domain", raw: Raw) -> tuple[dict[str, Samples], tuple[str, ...] | None, tuple[str, ...]]:
    """All splits with labels as tensors, and a problem where there is none that counts; the classes, and notes."""
    if not domain.labelled:  # zeros, which `as_split` leaves out
        nothing = {name: torch.zeros(len(one), dtype=torch.int64) for name, one in raw.splits.items()}
        return {name: replace(one, labels=nothing[name]) for name, one in raw.splits.items()}, None, ()
    if domain.label_kind == "boxes":
        return dict(raw.splits), raw.classes, ()
    if domain.label_kind == "texts":
        return {name: with_texts(samples) for name, samples in raw.splits.items()}, None, ()
    if domain.label_kind == "numbers":
        return {name: with_numbers(samples) for name, samples in raw.splits.items()}, None, ()
    several = domain.label_kind == "multilabel"
    if several and isinstance(raw.splits["train"].labels, Tensor):
        return {name: replace(one, labels=one.labels.float()) for name, one in raw.splits.items()}, raw.classes, ()
    words = {
        name: words_of(one.labels, domain.label_separator if several else None) for name, one in raw.splits.items()
    }
    spellings, notes = one_spelling(words, raw.classes)
    if spellings:
        words = {
            name: [None if one is None else tuple(spellings.get(word, word) for word in one) for one in rows]
            for name, rows in words.items()
        }
    problems = raw.splits["train"].problems
    labelled = (one for i, one in enumerate(words["train"]) if i not in problems) if problems else words["train"]
    found = {word for one in {*labelled} for word in one or ()}
    classes = raw.classes or ordered(found)
    allowed = "train's classes"
    if raw.classes:
        allowed = f"{domain.key}.classes" if domain.classes else "the classes"
    encode = with_label_sets if several else with_classes
    splits = {name: encode(one, words[name], classes, allowed) for name, one in raw.splits.items()}
    if several and (without := sum(one == () for rows in words.values() for one in rows)):
        notes += (f"{without:,} {domain.noun} have none of the labels",)
    return splits, classes, notes


def words_of(labels: Iterable[Any], separator: str | None) -> list[tuple[str, ...] | None]:
    """Each sample's labels: one, or several that are separated or listed; None where they are missing."""
    if separator is None:
        known: dict[Any, tuple[str, ...]] = {}  # a million rows have few labels
        return [None if label is None else known.setdefault(label, (label,)) for label in labels]
    several = (label.split(separator) if isinstance(label, str) else label for label in labels)
    return [None if one is None else tuple(word.strip() for word in one if word.strip()) for one in several]


def with_texts(samples: Samples) -> Samples:
    """Labels as texts, with a problem where one is missing."""
    labels = ["" if label is None else str(label).strip() for label in samples.labels]
    missing = {index: "its label is missing" for index, label in enumerate(labels) if not label}
    return replace(samples, labels=TargetTexts(labels), problems=missing | dict(samples.problems))


def with_numbers(samples: Samples) -> Samples:
    """Labels as float32 `(N,)`, with a problem where one is no number."""
    numbers = [number_of(label) for label in samples.labels]
    labels = torch.tensor(numbers, dtype=torch.float64).float()
    wrong = {
        index: "its label is missing"
        if samples.labels[index] is None
        else f"its label {samples.labels[index]!r} is {'too large' if math.isfinite(numbers[index]) else 'no number'}"
        for index in (~labels.isfinite()).nonzero()[:, 0].tolist()
    }
    return replace(samples, labels=labels, problems=wrong | dict(samples.problems))


def with_classes(
    samples: Samples, words: Sequence[tuple[str, ...] | None], classes: Sequence[str], allowed: str
) -> Samples:
    """Labels as int64 `(N,)`, with a problem where one is missing or no class."""
    number = {name: index for index, name in enumerate(classes)}
    codes = {one: number.get(one[0], 0) if one else 0 for one in {*words}}  # a million rows have few labels
    labels = torch.from_numpy(np.fromiter(map(codes.__getitem__, words), np.int64, len(words)))
    return replace(samples, labels=labels, problems=unknown_labels(words, classes, allowed) | dict(samples.problems))


def with_label_sets(
    samples: Samples, words: Sequence[tuple[str, ...] | None], classes: Sequence[str], allowed: str
) -> Samples:
    """Labels as float32 `(N, K)`, 1 for each label that a sample has, with a problem where one is unknown."""
    number = {name: index for index, name in enumerate(classes)}
    labels = torch.zeros(len(words), len(classes))
    for row, one in enumerate(words):
        labels[row, [number[word] for word in one or () if word in number]] = 1
    return replace(samples, labels=labels, problems=unknown_labels(words, classes, allowed) | dict(samples.problems))


def unknown_labels(words: Sequence[tuple[str, ...] | None], classes: Sequence[str], allowed: str) -> dict[int, str]:
    """By index, that a sample's label is missing, or which one is no class."""
    number, problems = set(classes), {}
    if all(one is not None and number.issuperset(one) for one in {*words}):
        return {}
    known = ", ".join(classes[:CLASSES_SHOWN]) + (", ..." if len(classes) > CLASSES_SHOWN else "")
    for index, one in enumerate(words):
        if one is None:
            problems[index] = "its label is missing"
        elif unknown := [word for word in one if word not in number]:
            problems[index] = f"its label {unknown[0]!r} is not one of {allowed}: {known}"
    return problems


def one_spelling(
    words: Mapping[str, Sequence[tuple[str, ...] | None]], classes: Sequence[str] | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Another spelling for labels that mean the same (0 and 0.0), and notes on those that may (Cat and cat)."""
    counts = Counter[str]()
    for one, times in sum((Counter(rows) for rows in words.values()), Counter()).items():
        for word in one or ():
            counts[word] += times
    same: dict[str, list[str]] = {}
    for word in counts:
        same.setdefault(canonical(word), []).append(word)
    spellings: dict[str, str] = {}
    notes: list[str] = []
    for spelled in same.values():
        chosen = next((word for word in spelled if classes and word in classes), min(spelled, key=len))
        if len(spelled) > 1 and not (classes and set(spelled) <= set(classes)):
            spellings |= dict.fromkeys(spelled, chosen)
            both = " and ".join(f"{word!r} ({counts[word]:,})" for word in sorted(spelled))
            notes.append(f"labels {both} count as one class, {chosen!r}")
    alike: dict[str, list[str]] = {}
    for spelled in same.values():
        alike.setdefault(canonical(spelled[0]).casefold(), []).append(spellings.get(spelled[0], spelled[0]))
    notes += [
        f"labels {' and '.join(map(repr, sorted(one)))} differ in case alone, and are different classes here"
        for one in alike.values()
        if len(one) > 1
    ]
    return spellings, tuple(notes)


def canonical(word: str) -> str:
    """What two spellings of one label have in common: numbers by their value, text without odd blanks and forms."""
    text = " ".join(unicodedata.normalize("NFKC", word).split())
    number = number_of(text) if text[:1] in "+-.0123456789" else math.nan
    written = text.lstrip("+-").lstrip("0")
    return repr(number + 0.0) if math.isfinite(number) and not (text[:1] == "0" and written[:1].isdigit()) else text


def number_of(label: Any) -> float:
    """The number that a label is or reads as; NaN where it is none."""
    try:
        return math.nan if label is None or "_" in str(label) else float(label)
    except (TypeError, ValueError):
        return math.nan


def ordered(labels: Iterable[str]) -> tuple[str, ...]:
    """Class names in order, numbers by their value."""
    names = sorted(labels)
    try:
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    except ValueError:
        return tuple(names)


def only_kept_classes(
    domain: "Domain", splits: Mapping[str, Samples], classes: tuple[str, ...] | None, kept: Sequence[str]
) -> tuple[dict[str, Samples], tuple[str, ...]]:
    """The samples of the classes that the config keeps, and their names; GraftError for names that are no class."""
    key = f"data.{domain.key.split('.')[1]}_classes"
    if classes is None:
        has = "numbers and no classes" if domain.labelled else "no labels"
        raise GraftError(f"{key}: {domain.key} has {has}. Set {key}=null.")
    return of_classes(splits, domain.named(classes), kept, key)


# Samples that cannot be used


def without_bad(domain: "Domain", splits: Mapping[str, Samples]) -> tuple[dict[str, Samples], list[Skipped]]:
    """The samples that can be used, and what is wrong with the others; GraftError where none may be left out."""
    skipped = [
        bad
        for name, samples in splits.items()
        for bad in (
            *(Skipped(name, printable(place), printable(problem)) for place, problem in samples.unread),
            *(
                Skipped(name, printable(samples.places[i]), printable(problem))
                for i, problem in sorted(samples.problems.items())
            ),
        )
    ]
    if not skipped:
        return dict(splits), []
    if domain.on_bad_sample == "error":
        number = sum(len(samples) + len(samples.unread) for samples in splits.values())
        raise GraftError(
            f"{domain.key}: {len(skipped):,} of {number:,} {domain.unit} cannot be used ({reasons(skipped)}). "
            f"Correct them, or leave them out: {domain.key}.on_bad_sample=skip"
        )
    kept = {
        name: torch.tensor([i for i in range(len(samples)) if i not in samples.problems], dtype=torch.int64)
        for name, samples in splits.items()
    }
    usable = {name: samples.take(kept[name]) if samples.problems else samples for name, samples in splits.items()}
    return {name: replace(samples, unread=()) for name, samples in usable.items()}, skipped


def reasons(skipped: Sequence[Skipped]) -> str:
    """The first of the bad samples with their reasons."""
    return listed([f"{bad.place}: {bad.problem}" for bad in skipped], separator="; ")


def skipped_notes(domain: "Domain", skipped: Sequence[Skipped]) -> tuple[str, ...]:
    """One line on what was skipped; empty where nothing was."""
    return (f"skipped: {len(skipped):,} {domain.unit} ({reasons(skipped)})",) if skipped else ()


# Copies and the split


def copy_notes(domain: "Domain", splits: Mapping[str, Samples]) -> tuple[str, ...]:
    """Lines on samples that occur more than once in train, and on samples of official splits that train has too."""
    train = splits["train"]
    if train.contents is None:
        return ()
    contents = {name: samples.contents for name, samples in splits.items() if samples.contents is not None}
    return (
        *duplicate_notes(group_numbers(train.contents), train.labels, domain.noun),
        *leak_notes(contents, domain.noun),
    )


def duplicate_notes(groups: Tensor, labels: Any, noun: str) -> tuple[str, ...]:
    """One line on samples that occur more than once, and whether their labels agree; empty where none does."""
    several = (groups.bincount() > 1)[groups].nonzero()[:, 0]
    if not len(several):
        return ()
    seen: dict[int, list[Hashable]] = {}
    for group, label in zip(groups[several].tolist(), labels[several].tolist(), strict=True):
        seen.setdefault(group, []).append(tuple(label) if isinstance(label, list) else label)
    copies = list(seen.values())
    conflicts = sum(len(set(members)) > 1 for members in copies)
    return (f"{len(copies):,} {noun} occur more than once, {conflicts} of them with different labels",)


def leak_notes(contents: Mapping[str, Sequence[Hashable]], noun: str) -> tuple[str, ...]:
    """Lines on samples of a held-out split that train has too."""
    shared = {name: number_in(contents[name], contents["train"]) for name in HELD_OUT if name in contents}
    return tuple(f"{count:,} {noun} of {name} are in train too" for name, count in shared.items() if count)


def leak_notes_after(
    domain: "Domain", official: Mapping[str, Samples], splits: Mapping[str, Samples]
) -> tuple[str, ...]:
    """Lines on what is on both sides although it belongs together: groups of official splits, copies.

    Copies that a random split keeps on one side need no line; tables and splits by time may have some on both.
    """
    notes: tuple[str, ...] = ()
    if column := domain.split.get("group"):
        key = f"{domain.key}.split.group"
        groups = {name: group_values(samples, column, key) for name, samples in splits.items()}
        notes += leak_notes(groups, f"{domain.noun}, by their {column},")
    loose = {name: one.contents for name, one in splits.items() if name not in official or name == "train"}
    known = {name: contents for name, contents in loose.items() if contents is not None}
    if 1 < len(loose) == len(known):
        notes += leak_notes(known, domain.noun)
    return notes


def near_notes(
    domain: "Domain", splits: Mapping[str, Samples], keys: Mapping[str, Sequence[Hashable]]
) -> tuple[str, ...]:
    """Lines on samples of a held-out split that look like one of train, by their keys `(N,)`, copies apart."""
    notes: tuple[str, ...] = ()
    train, exact = set(keys["train"]), set(splits["train"].contents or ())
    for name in HELD_OUT:
        contents = splits[name].contents or [None] * len(splits[name])
        alike = sum(key in train and one not in exact for key, one in zip(keys[name], contents, strict=True))
        if alike:
            notes += (
                f"{alike:,} of {len(splits[name]):,} {domain.noun} of {name} look like one of train (near "
                f"duplicates): {domain.key}.split.near_duplicates=group keeps such on one side",
            )
    return notes


def split_off(
    domain: "Domain",
    splits: Mapping[str, Samples],
    classes: Sequence[str] | None,
    seed: int,
    near: Mapping[str, Sequence[Hashable]] | None = None,
    fold: Fold | None = None,
) -> tuple[dict[str, Tensor], str]:
    """Indices in train of what is not official and of what stays, empty where all is; and the rule.

    `near` are keys `(N,)` of samples that look alike, which `split.near_duplicates=group` keeps on one side. Of a
    `fold` the test split is that fold, and validation is split off the rest.
    """
    train, near_train = splits["train"], near["train"] if near else None
    sizes = {name: size for name, size in domain.sizes.items() if name not in splits}
    if fold is None:
        return split_rest(domain, train, sizes, classes, seed, near_train) if sizes else ({}, "official splits")
    if "test" in splits:
        raise GraftError(
            f"evaluation={fold.evaluation}: {domain.key} has an official test split, {domain.origin('test')}, which "
            f"stays whole and is no fold. Leave that split out of {domain.key}, or repeat seeds: seeds=5"
        )
    rest, tested, rule = fold_off(domain, train, classes, seed, near_train, fold)
    del sizes["test"]
    if not sizes:
        return {"train": rest, "test": tested}, rule
    kept = [near_train[index] for index in rest.tolist()] if near_train else None
    indices, of_rest = split_rest(domain, train.take(rest), sizes, classes, seed, kept)
    return {**{name: rest[index] for name, index in indices.items()}, "test": tested}, f"{rule}; {of_rest}"


def fold_off(
    domain: "Domain",
    train: Samples,
    classes: Sequence[str] | None,
    seed: int,
    near: Sequence[Hashable] | None,
    fold: Fold,
) -> tuple[Tensor, Tensor, str]:
    """Indices in train of what a fold may learn from and of what it tests, and the rule; GraftError for too little."""
    place = f"data.fold={fold.number} of {fold.folds} folds"
    if fold.evaluation == "leave_one_group_out":
        name, tested = groups_left_out(domain, train, fold.folds)[fold.number]
        return others(len(train), tested), tested, f"{place}, {domain.split['group']} {name}"
    if column := domain.split.get("time"):
        if fold.evaluation == "repeated":
            raise GraftError(
                f"evaluation=repeated with {domain.key}.split.time={column}: folds by time have no randomness to "
                "repeat. Use evaluation=kfold"
            )
        by_time = time_folds(times_of(train, column, f"{domain.key}.split.time"), fold.folds)
        if any(len(part) == 0 for one in by_time for part in one):
            raise GraftError(
                f"folds={fold.folds} with {domain.key}.split.time={column}: {len(train):,} {domain.noun} have too few "
                "different times for that many folds. Use fewer"
            )
        return *by_time[fold.number], f"{place} by time, {column}"
    found, by, _ = groupings(domain, train, near)
    groups = merged_groups(found) if found else None
    number = len(train) if groups is None else len(groups.unique())
    if number == len(train):
        groups = None
    unit = domain.noun if groups is None else f"groups of {domain.noun} that belong together"
    if number < fold.folds:
        raise GraftError(f"folds={fold.folds}: there are only {number:,} {unit}. Use folds={number} or less")
    if domain.label_kind == "classes":
        assert classes is not None
        check_classes_fill(train.labels, groups, domain.named(tuple(classes)), fold.folds, unit)
    strata = strata_of(domain, train.labels, classes)
    if groups is None:
        folds = stratified_folds(strata, fold.folds, seed)
    else:
        folds = grouped_folds(strata, groups, fold.folds, seed)
    tested = folds[fold.number]
    return others(len(train), tested), tested, f"{place}, {f'by {by}' if by else 'stratified'}"


def groups_left_out(domain: "Domain", train: Samples, folds: int | None = None) -> list[tuple[Hashable, Tensor]]:
    """Each group and the indices of its samples; GraftError without groups, or where there are not `folds` of them."""
    key = f"{domain.key}.split.group"
    if not (column := domain.split.get("group")):
        raise GraftError(
            f"evaluation=leave_one_group_out: {domain.key} has no groups. Name the column (of files a regular "
            f"expression) that says what belongs together: {key}=..."
        )
    found = group_folds(group_values(train, column, key))
    if len(found) < 2 or len(found) != (folds or len(found)):
        expected = f", and data.folds={folds}" if folds and len(found) > 1 else ", and one is left out"
        raise GraftError(f"evaluation=leave_one_group_out: {key}={column} has {len(found):,} groups{expected}.")
    return found


def groupings(domain: "Domain", train: Samples, near: Sequence[Hashable] | None) -> tuple[list[Tensor], str, bool]:
    """What keeps samples on one side: group numbers `(N,)`, the rule's name, and whether they are large."""
    groups = [group_numbers(train.contents)] if domain.copies_stay_together and train.contents is not None else []
    rule = ""
    if column := domain.split.get("group"):
        values = group_values(train, column, f"{domain.key}.split.group")
        groups.append(group_numbers(values))
        rule = f"{column}, {len(set(values)):,} groups"
    by_looks = domain.split.get("near_duplicates") == "group"
    if by_looks and near:
        groups.append(group_numbers(near))
    return groups, rule, bool(column or by_looks)


def split_rest(
    domain: "Domain",
    train: Samples,
    sizes: dict[str, float | int],
    classes: Sequence[str] | None,
    seed: int,
    near: Sequence[Hashable] | None,
) -> tuple[dict[str, Tensor], str]:
    """Indices of splits of these sizes and of what stays for training, and the rule; GraftError for too few samples."""
    fractions = {name: size for name, size in sizes.items() if size < 1}
    if sum(fractions.values()) >= 1:
        given = " ".join(f"{domain.key}.{name}_fraction={size:g}" for name, size in fractions.items())
        raise GraftError(
            f"{given}: together they leave nothing to train on. Give fractions whose sum is below 1, such as "
            f"{domain.key}.val_fraction=0.15 {domain.key}.test_fraction=0.15"
        )
    if column := domain.split.get("time"):
        indices = time_split(times_of(train, column, f"{domain.key}.split.time"), sizes)
        rule = f"split by time, {column}"
    else:
        groups, by, large = groupings(domain, train, near)
        rule = f"split by {by}" if by else "random, stratified split"
        strata = strata_of(domain, train.labels, classes)
        indices = stratified_split(strata, sizes, seed, merged_groups(groups) if groups else None, large)
    if empty := [name for name, index in indices.items() if len(index) == 0]:
        change = f"lower {domain.key}.{next(iter(sizes))}" if empty[0] == "train" else f"raise {domain.key}.{empty[0]}"
        raise GraftError(
            f"{domain.origin('train')}: {len(train)} {domain.noun} are too few to split off a {empty[0]} split "
            f"({rule}). Add {domain.noun}, or {change}_fraction.{number_advice(domain, len(train), classes)}"
        )
    return indices, rule


def check_folds(domain: "Domain", split_seed: int, evaluation: Evaluation, folds: int | None) -> int:
    """How many folds a domain has; GraftError where one of them cannot be trained and tested."""
    read = usable(domain)
    if folds is None:
        folds = len(groups_left_out(domain, read.splits["train"]))
    for number in range(folds):
        indices, _ = split_off(
            domain, read.splits, read.classes, split_seed, read.near, Fold(evaluation, number, folds)
        )
        try:
            check_classes(domain, read.splits["train"].take(indices["train"]), read.classes)
        except GraftError as error:
            raise GraftError(f"evaluation={evaluation}, data.fold={number} of {folds} folds: {error}") from None
    return folds


def strata_of(domain: "Domain", labels: Any, classes: Sequence[str] | None) -> Tensor:
    """What a split keeps the shares of `(N,)`: classes, each sample's rarest label, or nothing."""
    match domain.label_kind:
        case "numbers" | "texts":
            return torch.zeros(len(labels), dtype=torch.int64)
        case "multilabel":
            return rarest_labels(labels)
        case "boxes":
            return rarest_labels((labels.counts(len(classes or ())) > 0).float())
    return domain.strata(labels, classes)


def rarest_labels(labels: Tensor) -> Tensor:
    """Of labels `(N, K)` the rarest that each sample has `(N,)`, K where it has none.

    Combinations of labels would be strata of one sample each, which cannot be split.
    """
    counts = labels.sum(0)
    counts = torch.where(labels > 0, counts, math.inf)
    none = torch.full((len(labels), 1), torch.finfo(counts.dtype).max)
    return torch.cat([counts, none], dim=1).argmin(1)


def fingerprint_of(domain: "Domain", raw: Raw, splits: Mapping[str, Samples], classes: Sequence[str] | None) -> str:
    """Hash of all samples that can be used and of their labels, wherever their files lie."""
    parts: list[bytes | Digests] = [raw.fingerprint.encode(), domain.label_kind.encode(), repr(classes).encode()]
    for name, samples in splits.items():
        labels = samples.labels
        parts += [name.encode(), labels.digest if isinstance(labels, Boxes | TargetTexts) else labels.numpy().tobytes()]
        if isinstance(samples.contents, Digests):
            parts.append(samples.contents)
        else:
            parts += [one if isinstance(one, bytes) else repr(one).encode() for one in samples.contents or ()]
    return sha256(parts)


def as_split(domain: "Domain", fingerprint: str, name: str, samples: Samples, indices: Mapping[str, Tensor]) -> Split:
    """The samples that are left as a split, whose fingerprint holds which of the domain's they are."""
    fingerprint = f"{fingerprint}/{'train' if name in indices else name}"
    if name in indices:
        fingerprint = sha256([fingerprint.encode(), indices[name].numpy().tobytes()])
    if samples.fitted:
        fingerprint = sha256([fingerprint.encode(), samples.fitted.encode()])
    groups = None
    if column := domain.split.get("group"):
        groups = group_numbers(group_values(samples, column, f"{domain.key}.split.group"))
    return Split(
        samples.inputs,
        samples.labels if domain.labelled else None,
        fingerprint,
        samples.places,
        columns=samples.columns,
        groups=groups,
        contents=samples.contents,
    )


# What is left


def check_not_empty(domain: "Domain", splits: Mapping[str, Samples], skipped: Sequence[Skipped]) -> None:
    """Raise GraftError for a split without usable samples, with what is wrong with those that were skipped."""
    for name, samples in splits.items():
        if not len(samples):
            bad = [one for one in skipped if one.split == name]
            why = f" ({reasons(bad)})" if bad else ""
            raise GraftError(f"{domain.origin(name)}: there are no {domain.unit} that can be used for {name}{why}.")


def without_lost_classes(
    splits: Mapping[str, Samples], classes: tuple[str, ...] | None, raw: Raw
) -> tuple[dict[str, Samples], tuple[str, ...] | None]:
    """Without the classes of which every sample turned out to be unusable, such as a second header row's."""
    if classes is None or raw.classes is not None or splits["train"].labels.ndim > 1:
        return dict(splits), classes
    present = torch.cat([samples.labels for samples in splits.values()]).unique()
    if len(present) == len(classes):
        return dict(splits), classes
    kept = {name: replace(one, labels=torch.searchsorted(present, one.labels)) for name, one in splits.items()}
    return kept, tuple(classes[index] for index in present.tolist())


def absent_labels(splits: Mapping[str, Samples | Split], classes: Sequence[str] | None) -> tuple[str, ...]:
    """Lines on classes of which a split has no sample, and on what becomes of an evaluated one's AUROC then."""
    notes = []
    if not classes:
        return ()
    for name, samples in splits.items():
        labels = samples.labels
        if isinstance(labels, Boxes):
            absent = names_of_zeros(classes, labels.counts(len(classes)).sum(0))
            notes += [f"{name} has no box of {listed(absent, CLASSES_SHOWN)}: its AP does not exist"] * bool(absent)
            continue
        counts = labels.bincount(minlength=len(classes)) if labels.ndim == 1 else labels.sum(0)
        absent = names_of_zeros(classes, counts)
        if absent and (name != "train" or labels.ndim > 1):
            left = ((counts > 0) & (counts < len(labels))).any()  # what all samples have cannot be told from others
            auroc = "is the mean over the others" if left else "does not exist"
            notes.append(f"{name} has no sample of {listed(absent, CLASSES_SHOWN)}: its AUROC {auroc}")
        elif absent:
            notes.append(f"{name} has no sample of {listed(absent, CLASSES_SHOWN)}")
    return tuple(notes)


def names_of_zeros(classes: Sequence[str], counts: Tensor) -> list[str]:
    """The classes whose count in `(K,)` is 0."""
    return [one for one, count in zip(classes, counts.tolist(), strict=True) if not count]


def check_classes(
    domain: "Domain", train: Samples, classes: Sequence[str] | None, skipped: Sequence[Skipped] = ()
) -> None:
    """Raise GraftError for a class that training never sees, and for labels that leave nothing to tell apart."""
    if classes is None:
        return
    bad = [one for one in skipped if one.split == "train"]
    without = f" Skipped are {len(bad):,} {domain.unit} ({reasons(bad)})." if bad else ""
    if domain.label_kind == "multilabel":
        if not classes:
            raise GraftError(f"{domain.origin('train')}: no sample has a label. {domain.advice}")
        return
    if domain.label_kind == "boxes":
        if absent := names_of_zeros(classes, train.labels.counts(len(classes)).sum(0)):
            raise GraftError(f"{domain.origin('train')}: no training image has a box of {listed(absent)}.{without}")
        return
    present = {classes[index] for index in train.labels.unique().tolist()}
    if len(present) < 2:
        raise GraftError(
            f"{domain.origin('train')}: every label is {next(iter(present))!r}, but at least 2 classes are needed. "
            f"{domain.advice}{without}"
        )
    if domain.may_lack_classes:
        return
    if missing := [name for name in classes if name not in present]:
        origin = f"{domain.key}.classes" if domain.classes else domain.origin("train")
        message = (
            f"{origin}: no training sample has the label {missing[0]!r}, one of {len(classes)} classes."
            f" Its labels are {', '.join(list(ordered(present))[:CLASSES_SHOWN])}."
        )
        raise GraftError(message + number_advice(domain, len(train), classes) + without)


def number_advice(domain: "Domain", samples: int, classes: Sequence[str] | None) -> str:
    """What helps where so many classes of a number of samples are probably numbers to predict; empty elsewhere."""
    if not classes or len(classes) <= NUMBERS_SHARE * samples or not all(math.isfinite(number_of(c)) for c in classes):
        return ""
    return (
        f" Its {len(classes):,} classes are numbers: to predict them as such, set task=regression "
        f"{domain.key}.label_kind=numbers"
    )
