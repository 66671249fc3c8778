"""Texts with labels, row by row, whatever they come from: bad rows named or skipped, missing parts split off."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graft.data.domain import Domain, DomainData, Split, content_groups, duplicate_notes, leak_notes, sha256
from graft.data.splits import stratified_split
from graft.errors import GraftError


@dataclass(frozen=True)
class Row:
    """A text and the word that is its label; `problem` says why it cannot be used, and is empty where it can."""

    file: Path
    number: int  # of the line on which it ends, from 1
    text: str
    label: str
    problem: str = ""


class LabelledTexts(Domain):
    """A domain of rows that `read` gives."""

    title: str  # of the domain

    def __init__(
        self,
        label: str | int,
        classes: Sequence[str | int] | None,
        val_fraction: float,
        test_fraction: float,
        on_bad_sample: str,
    ) -> None:
        """`label` is the column's name for messages; `classes` in their order, a row of another one is bad."""
        self.label = label
        self.wanted = None if classes is None else tuple(str(name) for name in classes)
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.on_bad_sample = on_bad_sample

    def read(self) -> dict[str, list[Row]]:
        """Rows of `train`, and of `val` and `test` where they are official, with those that cannot be used."""
        raise NotImplementedError

    def origin(self, part: str) -> str:
        """The key of the config that names where a part comes from, and its value."""
        raise NotImplementedError

    def load(self, split_seed: int) -> DomainData:
        """Read the parts that there are and split off the others; copies of one text stay on one side.

        Raises GraftError for what is missing, a row that cannot be used, or fewer than two classes.
        """
        rows, classes, notes = self._parts
        texts = {part: [row.text for row in members] for part, members in rows.items()}
        labels = {part: torch.tensor([classes.index(row.label) for row in members]) for part, members in rows.items()}
        splits = {part: Split(Texts(texts[part]), labels[part], f"{self.fingerprint}/{part}") for part in rows}
        groups = content_groups(text.encode() for text in texts["train"])
        whole = splits["train"]
        splits |= {part: whole.subset(index) for part, index in self._cut(labels, groups, split_seed).items()}
        return DomainData(
            name=self.title,
            train=splits["train"],
            val=splits["val"],
            test=splits["test"],
            classes=classes,
            channels=None,
            fingerprint=self.fingerprint,
            notes=(*notes, *duplicate_notes(groups, labels["train"], "texts"), *leak_notes(texts, "texts")),
            kind="text",
            backbone_arguments={"texts": splits["train"].inputs},
        )

    def _cut(self, labels: Mapping[str, Tensor], groups: Tensor, seed: int) -> dict[str, Tensor]:
        """Indices of the parts that are split off `train`, and of what is left of it; empty where all are official."""
        sizes = {"test": self.test_fraction, "val": self.val_fraction}
        sizes = {part: size for part, size in sizes.items() if part not in labels}
        cut = stratified_split(labels["train"], sizes, seed, groups) if sizes else {}
        if empty := [part for part, index in cut.items() if len(index) == 0]:
            raise GraftError(
                f"{self.key}: {len(labels['train'])} texts are too few to split off a {empty[0]} part. "
                f"Add texts, or raise {self.key}.{empty[0]}_fraction."
            )
        return cut

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of all texts and labels."""
        parts, classes, _ = self._parts
        content = [(name, [(row.text, row.label) for row in rows]) for name, rows in parts.items()]
        return sha256([*(repr(part).encode() for part in content), repr(classes).encode()])

    @functools.cached_property
    def _parts(self) -> tuple[dict[str, list[Row]], tuple[str, ...], tuple[str, ...]]:
        """Usable rows of every part that there is, the class names, and what a reader should know."""
        rows = self.read()
        train = [row for row in rows["train"] if not row.problem]
        classes = self.wanted or ordered({row.label for row in train})
        allowed = f"{self.key}.classes" if self.wanted else "train's"
        rows = {name: [checked(row, classes, allowed) for row in part] for name, part in rows.items()}
        bad = [row for part in rows.values() for row in part if row.problem]
        if bad and self.on_bad_sample == "error":
            raise GraftError(
                f"{self.key}: {bad[0].file}, row {bad[0].number}: {bad[0].problem}"
                f"{f'; {len(bad) - 1} more rows cannot be used either' if len(bad) > 1 else ''}. "
                f"Correct it, or leave such rows out: {self.key}.on_bad_sample=skip"
            )
        rows = {name: [row for row in part if not row.problem] for name, part in rows.items()}
        self._refuse_unusable(rows, classes)
        return rows, classes, skipped_notes(bad)

    def _refuse_unusable(self, rows: Mapping[str, list[Row]], classes: Sequence[str]) -> None:
        """Raise GraftError for a part without rows, and for labels that leave nothing to tell apart."""
        for name, part in rows.items():
            if not part:
                raise GraftError(f"{self.origin(name)}: there are no rows that can be used.")
        present = {row.label for row in rows["train"]}
        if missing := [name for name in classes if name not in present]:
            raise GraftError(
                f"{self.key}.classes: no row of {self.origin('train')} has the label {missing[0]!r}. "
                f"Its labels are {', '.join(ordered(present))}: name those, or set {self.key}.classes=null."
            )
        if len(present) < 2:
            raise GraftError(
                f"{self.origin('train')}: every row has the label {next(iter(present))!r} in "
                f"{self.key}.label={self.label}, but at least 2 classes are needed. Name another column."
            )


def labelled_row(file: Path, number: int, text: Any, label: Any) -> Row:
    """A row of what stands in the two columns, with a problem where that is no text with a label."""
    if text is None or text != text or not str(text).strip():
        return Row(file, number, "", "", "its text is empty")
    if not isinstance(text, str):
        return Row(file, number, "", "", f"its text is no text but {text!r}")
    if problem := not_utf8(text) or not_utf8(str(label)):
        return Row(file, number, "", "", f"it {problem}")
    word = str(int(label) if isinstance(label, float) and label.is_integer() else label).strip()
    if label is None or word.lower() in ("", "nan") or isinstance(label, list | dict):
        return Row(file, number, text.strip(), "", f"its label is missing ({label!r})")
    return Row(file, number, text.strip(), word)


def not_utf8(text: str) -> str:
    """Where a text was read from bytes that are not UTF-8, and what helps; empty where it was not."""
    place = next((place for place, character in enumerate(text) if "\ud800" <= character <= "\udfff"), None)
    if place is None:
        return ""
    before = f"behind {text[:place][-20:]!r}" if place else "from its beginning"
    return f"is not UTF-8 {before} (iconv -f <its encoding, such as latin1> -t utf-8 <file> makes it so)"


class Texts(Sequence):
    """Some texts by index; not a list, which Hydra would take for a part of the config."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> str:
        return self.texts[index]


def checked(row: Row, classes: Sequence[str], allowed: str) -> Row:
    """The row, with a problem where its label is none of the classes, which are `allowed` in words."""
    if row.problem or row.label in classes:
        return row
    known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    return Row(row.file, row.number, row.text, row.label, f"its label {row.label!r} is not one of {allowed}: {known}")


def ordered(labels: Iterable[str]) -> tuple[str, ...]:
    """Class names in order, numbers by their value."""
    names = sorted(labels)
    try:
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    except ValueError:
        return tuple(names)


def skipped_notes(bad: Sequence[Row]) -> tuple[str, ...]:
    """One line on the rows that were skipped, with the first of them; empty where there are none."""
    if not bad:
        return ()
    return (f"{len(bad):,} rows are skipped, the first is row {bad[0].number} of {bad[0].file.name}: {bad[0].problem}",)
