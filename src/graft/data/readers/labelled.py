"""Samples with a label each, row by row, whatever they are: bad rows named or skipped, missing splits split off."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graft.config.types import FractionBelowOne
from graft.data.domain import (
    Domain,
    DomainData,
    Inputs,
    Modality,
    OnBadSample,
    Split,
    content_groups,
    duplicate_notes,
    leak_notes,
    sha256,
)
from graft.data.splits import split_off
from graft.errors import GraftError


@dataclass(frozen=True)
class Record:
    """A sample and the word that is its label; `problem` says why it cannot be used, and is empty where it can."""

    file: Path
    number: int | None  # of the line on which it ends, from 1; None where the file is the row
    content: Any
    label: str
    problem: str = ""

    @property
    def place(self) -> str:
        """Where to look for it."""
        return str(self.file) if self.number is None else f"{self.file}, row {self.number}"

    @property
    def short_place(self) -> str:
        """The same without the folder."""
        return self.file.name if self.number is None else f"row {self.number} of {self.file.name}"


class LabelledSamples(Domain):
    """A domain of rows that `read` gives."""

    title: str  # of the domain
    modality: Modality  # as in DomainData
    noun: str  # what messages call several samples
    unit = "rows"  # what messages call several of what `read` gives
    advice: str  # where labels come from, for data of one class

    def __init__(
        self,
        classes: Sequence[str | int] | None,
        val_fraction: FractionBelowOne,
        test_fraction: FractionBelowOne,
        on_bad_sample: OnBadSample,
    ) -> None:
        """`classes` in their order, a row of another one is bad."""
        self.wanted = None if classes is None else tuple(str(name) for name in classes)
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.on_bad_sample = on_bad_sample

    def read(self) -> dict[str, list[Record]]:
        """Rows of `train`, and of `val` and `test` where they are official, with those that cannot be used."""
        raise NotImplementedError

    def origin(self, split: str) -> str:
        """The key of the config that names where a split comes from, and its value."""
        raise NotImplementedError

    def inputs(self, rows: Sequence[Record]) -> Inputs:
        """The samples of some rows, as the transform of the modality takes them."""
        raise NotImplementedError

    def bytes_of(self, row: Record) -> bytes:
        """What is the same exactly where two samples are."""
        raise NotImplementedError

    def backbone_arguments(self, train: Split) -> dict[str, Any]:
        """What a backbone that is made for these data has to know."""
        return {}

    def load(self, split_seed: int) -> DomainData:
        """Read the splits that there are and split off the others; copies of one sample stay on one side.

        Raises GraftError for what is missing, a row that cannot be used, or fewer than two classes.
        """
        rows, classes, notes = self._official
        labels = {split: torch.tensor([classes.index(row.label) for row in members]) for split, members in rows.items()}
        splits = {
            split: Split(self.inputs(members), labels[split], f"{self.fingerprint}/{split}")
            for split, members in rows.items()
        }
        contents = {split: [self.bytes_of(row) for row in members] for split, members in rows.items()}
        groups = content_groups(contents["train"])
        whole = splits["train"]
        splits |= {split: whole.subset(index) for split, index in self._cut(labels, groups, split_seed).items()}
        return DomainData(
            name=self.title,
            train=splits["train"],
            val=splits["val"],
            test=splits["test"],
            classes=classes,
            channels=None,
            fingerprint=self.fingerprint,
            notes=(
                *notes,
                *duplicate_notes(groups, labels["train"], self.noun),
                *leak_notes(contents, self.noun),
            ),
            modality=self.modality,
            backbone_arguments=self.backbone_arguments(splits["train"]),
        )

    def _cut(self, labels: Mapping[str, Tensor], groups: Tensor, seed: int) -> dict[str, Tensor]:
        """Indices of the splits that are split off `train`, and of what is left of it; empty where all are official."""
        sizes = {"test": self.test_fraction, "val": self.val_fraction}
        sizes = {split: size for split, size in sizes.items() if split not in labels}
        words = {"key": self.key, "origin": self.key, "noun": self.noun}
        return split_off(labels["train"], sizes, seed, groups, **words) if sizes else {}

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of all samples and labels."""
        official, classes, _ = self._official
        content = [(name, [(self.bytes_of(row), row.label) for row in rows]) for name, rows in official.items()]
        return sha256([*(repr(rows).encode() for rows in content), repr(classes).encode()])

    @functools.cached_property
    def _official(self) -> tuple[dict[str, list[Record]], tuple[str, ...], tuple[str, ...]]:
        """Usable rows of every split that there is, the class names, and what a reader should know."""
        rows = self.read()
        if not rows.get("train"):
            raise GraftError(f"{self.origin('train')}: there are no {self.unit} left to train on.")
        train = [row for row in rows["train"] if not row.problem]
        classes = self.wanted or ordered({row.label for row in train})
        allowed = f"{self.key}.classes" if self.wanted else "train's"
        rows = {name: [checked(row, classes, allowed) for row in members] for name, members in rows.items()}
        bad = [row for members in rows.values() for row in members if row.problem]
        if bad and self.on_bad_sample == "error":
            others = f"; {len(bad) - 1} more {self.unit} cannot be used either" if len(bad) > 1 else ""
            raise GraftError(
                f"{self.key}: {bad[0].place}: {bad[0].problem}{others}. "
                f"Correct it, or leave such {self.unit} out: {self.key}.on_bad_sample=skip"
            )
        rows = {name: [row for row in members if not row.problem] for name, members in rows.items()}
        self._refuse_unusable(rows, classes)
        return rows, classes, self._skipped_notes(bad)

    def _skipped_notes(self, bad: Sequence[Record]) -> tuple[str, ...]:
        """One line on the rows that were skipped, with the first of them; empty where there are none."""
        if not bad:
            return ()
        first = bad[0]
        return (f"{len(bad):,} {self.unit} are skipped, the first is {first.short_place}: {first.problem}",)

    def _refuse_unusable(self, rows: Mapping[str, list[Record]], classes: Sequence[str]) -> None:
        """Raise GraftError for a split without rows, and for labels that leave nothing to distinguish."""
        for name, members in rows.items():
            if not members:
                raise GraftError(f"{self.origin(name)}: there are no {self.unit} that can be used.")
        present = {row.label for row in rows["train"]}
        if missing := [name for name in classes if name not in present]:
            raise GraftError(
                f"{self.key}.classes: no {self.unit.removesuffix('s')} of {self.origin('train')} has the label "
                f"{missing[0]!r}. Its labels are {', '.join(ordered(present))}: name those, or set "
                f"{self.key}.classes=null."
            )
        if len(present) < 2:
            raise GraftError(
                f"{self.origin('train')}: every {self.unit.removesuffix('s')} has the label {next(iter(present))!r}, "
                f"but at least 2 classes are needed. {self.advice}"
            )


def checked(row: Record, classes: Sequence[str], allowed: str) -> Record:
    """The row, with a problem where its label is none of the classes, which are `allowed` in words."""
    if row.problem or row.label in classes:
        return row
    known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    return replace(row, problem=f"its label {row.label!r} is not one of {allowed}: {known}")


def ordered(labels: Iterable[str]) -> tuple[str, ...]:
    """Class names in order, numbers by their value."""
    names = sorted(labels)
    try:
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    except ValueError:
        return tuple(names)
