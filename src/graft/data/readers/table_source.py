"""Tables: columns of numbers and categories, fitted on training rows."""

import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from graft.baselines.boosting import GradientBoosting
from graft.config.types import FractionBelowOne, Natural
from graft.data.domain import (
    Domain,
    DomainData,
    OnBadSample,
    Split,
    duplicate_notes,
    group_numbers,
    leak_notes,
    seed_of,
    sha256,
)
from graft.data.readers.table import (
    LARGEST,
    Table,
    column_name,
    describe_bad,
    number,
    texts,
    to_numbers,
    to_texts,
)
from graft.data.splits import stratified_split
from graft.errors import GraftError
from graft.inputs.columns import CATEGORICAL, FIRST, MISSING, NUMERIC, UNKNOWN, Column, Columns
from graft.inputs.table import TableRows

NUMBERS_SHARE = 0.9  # a column of texts counts as numbers where so many of its values are; the others are mistakes then
CLASSES_SHOWN = 10
MANY_CATEGORIES = 0.5  # categories over rows from which a column is probably a name or a number of the row
TABLES = ("breast_cancer", "diabetes", "iris", "wine")  # of scikit-learn


class TableSource(Domain):
    """Rows with a label each; how a column is read follows from its training values, unless a key says so."""

    def __init__(
        self,
        label: str | int,
        label_kind: Literal["classes", "numbers"] = "classes",
        class_names: Sequence[str | int] | None = None,
        numeric: Sequence[str] = (),
        categorical: Sequence[str] = (),
        ignore: Sequence[str] = (),
        few_values: Natural = 5,
        val_fraction: FractionBelowOne = 0.15,
        test_fraction: FractionBelowOne = 0.15,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        """`label` is a column's name or index, `class_names` are those of its values in their order.

        A column of `few_values` different whole numbers or less is one of categories.
        """
        self.label = label
        self.label_kind = label_kind
        self.class_names = None if class_names is None else tuple(str(name) for name in class_names)
        self.kinds = {**dict.fromkeys(numeric, NUMERIC), **dict.fromkeys(categorical, CATEGORICAL)}
        self.ignore = tuple(ignore)
        self.few_values = few_values
        self.fractions = {"test": test_fraction, "val": val_fraction}
        self.on_bad_sample = on_bad_sample

    name: str

    def read(self) -> dict[str, Table]:
        """The table of each official split, `train` alone where there is none."""
        raise NotImplementedError

    def load(self, split_seed: int) -> DomainData:
        """Read, split what has no official split, and fit the columns on the training split.

        Raises GraftError for a missing file or column, rows that cannot be used, or a single class.
        """
        tables = self.read()
        read = {split: len(table) + len(table.bad) for split, table in tables.items()}
        label = column_name(tables["train"], self.label, f"{self.key}.label")
        self._refuse_columns(tables, label)
        tables = {split: self._with_labels(table, label) for split, table in tables.items()}
        classes = self._classes(tables["train"], label) if self.label_kind == "classes" else None
        if classes is not None:
            tables = {split: with_classes(table, label, classes) for split, table in tables.items()}

        bad = {split: table.bad for split, table in tables.items()}
        by_split = self._split(tables, label, split_seed)
        copies = self._copies(tables["train"], by_split, label)
        columns, notes = self._fit(by_split["train"], label)
        by_split = {split: with_numbers(table, columns) for split, table in by_split.items()}
        for split, table in by_split.items():
            bad.setdefault("train" if split not in bad else split, {})
            owner = split if split in tables else "train"
            bad[owner] = {**bad[owner], **table.bad}
        notes = (*self._bad_notes(tables, bad, read), *notes, *copies)
        self._refuse_empty(by_split, label, classes)
        splits = {
            split: Split(
                encode(table, columns),
                labels_of(table.columns[label], classes),
                sha256([self.fingerprint.encode(), f"{split_seed}/{split}".encode()]),
            )
            for split, table in by_split.items()
        }
        return DomainData(
            name=self.name,
            classes=self._named(classes),
            channels=None,
            fingerprint=self.fingerprint,
            notes=notes,
            modality="table",
            backbone_arguments={"columns": columns},
            baseline=GradientBoosting(),
            **splits,
        )

    def _refuse_columns(self, tables: dict[str, Table], label: str) -> None:
        """Raise GraftError for columns that a key names and the file lacks, or an official split lacks."""
        names = [name for name in tables["train"].columns if name not in (label, *self.ignore)]
        for key in ("numeric", "categorical", "ignore"):
            wanted = self.ignore if key == "ignore" else [n for n, kind in self.kinds.items() if kind == key]
            check_columns(f"{self.key}.{key}", wanted, tables["train"])
        for table in tables.values():
            check_columns(self.key, [*names, label], table)
        if not names:
            raise GraftError(f"{self.key}: {tables['train'].file} has no column beside the label {label!r}.")

    def _with_labels(self, table: Table, label: str) -> Table:
        """The rows that have a label, as a text or a number."""
        if self.label_kind == "classes":
            labels = to_texts(table.columns[label])
            wrong = np.array([value is None for value in labels], dtype=bool)
        else:
            labels, _ = to_numbers(table.columns[label])
            wrong = np.isnan(labels)
        given = to_texts(table.columns[label])
        word = "no label" if self.label_kind == "classes" else "no number as label"

        def reason(index: int) -> str:
            return f"{word} in {label!r}" + (f" but {given[index]!r}" if given[index] is not None else "")

        columns = {**table.columns, label: labels}
        return Table(table.file, columns, table.lines, table.bad).without(wrong, reason)

    def _classes(self, table: Table, label: str) -> tuple[str, ...]:
        """Names of the training split's classes, in the order of their numbers where they are numbers."""
        found = sorted(set(table.columns[label]))
        numbers, wrong = to_numbers(texts(found))
        if found and not wrong.any():
            found = [found[index] for index in np.argsort(numbers, kind="stable")]
        if len(found) < 2:
            raise GraftError(
                f"{self.key}: {table.file} needs at least 2 classes in the label column {label!r}, but has "
                f"{', '.join(found) or 'none'}. Choose another column: {self.key}.label=<name or number>"
            )
        return tuple(found)

    def _copies(self, train: Table, by_split: dict[str, Table], label: str) -> tuple[str, ...]:
        """Notes on rows with the same features, before and after the split.

        They are only told of and may be on both sides: where there are few categories they need not be copies.
        """
        names = [name for name in train.columns if name not in (label, *self.ignore)]
        groups = group_numbers(contents_of(train, names))
        contents = {split: contents_of(table, names) for split, table in by_split.items()}
        return (*duplicate_notes(groups, train.columns[label], "rows"), *leak_notes(contents, "rows"))

    def _named(self, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Names for the label's values, in their order."""
        if classes is None or self.class_names is None:
            return classes
        if len(self.class_names) != len(classes):
            raise GraftError(
                f"{self.key}.class_names=[{', '.join(self.class_names)}]: the label has {len(classes)} values, "
                f"{', '.join(classes)}. Give a name for each, in this order."
            )
        return self.class_names

    def _split(self, tables: dict[str, Table], label: str, seed: int) -> dict[str, Table]:
        """All three splits; those that are not official come from the training rows, classes in their shares."""
        sizes = {split: size for split, size in self.fractions.items() if split not in tables}
        train = tables["train"]
        strata = train.columns[label] if self.label_kind == "classes" else np.zeros(len(train))
        _, numbers = np.unique(strata.astype(str), return_inverse=True)
        indices = stratified_split(torch.from_numpy(numbers), sizes, seed)
        return tables | {split: Table.rows(without_bad(train), index.numpy()) for split, index in indices.items()}

    def _fit(self, train: Table, label: str) -> tuple[Columns, tuple[str, ...]]:
        """What the training rows say of the columns, and what a reader should know of it."""
        columns, constant, names = [], [], []
        for name, values in train.columns.items():
            if name == label or name in self.ignore:
                continue
            kind = self.kinds.get(name) or kind_of(values, self.few_values)
            column = fit_numbers(name, values) if kind == NUMERIC else fit_categories(name, values)
            if column is None:
                constant.append(name)
                continue
            columns.append(column)
            if len(column.categories) > MANY_CATEGORIES * len(train):
                names.append(f"{name!r} has {len(column.categories):,} categories in {len(train):,} training rows")
        if not columns:
            raise GraftError(f"{self.key}: every column of {train.file} is constant: there is nothing to learn from.")
        found = Columns(columns)
        notes = [
            f"{len(found.numeric)} numeric and {len(found.categorical)} categorical columns, fitted on the training "
            "split alone (all of it, whatever the label budget)"
        ]
        notes += [f"left out, constant in training: {', '.join(constant)}"] if constant else []
        notes += [f"{line}: is it the row's name? {self.key}.ignore leaves it out" for line in names]
        return found, tuple(notes)

    def _bad_notes(self, tables: dict[str, Table], bad: dict[str, dict[int, str]], read: dict[str, int]) -> list[str]:
        """A line for each file with rows that were skipped; GraftError where they are not to be."""
        lines = [describe_bad(tables[split].file, rows, read[split]) for split, rows in bad.items() if rows]
        if lines and self.on_bad_sample == "error":
            raise GraftError(
                f"{self.key}: {'; '.join(lines)}. Mend the file, or leave them out: {self.key}.on_bad_sample=skip"
            )
        return [f"skipped: {line}" for line in lines]

    def _refuse_empty(self, by_split: dict[str, Table], label: str, classes: tuple[str, ...] | None) -> None:
        """Raise GraftError for a split without rows, or a class that training never sees."""
        for split, table in by_split.items():
            if not len(table):
                raise GraftError(
                    f"{self.key}: {table.file} has too few rows for a {split} split. Add rows, or raise "
                    f"{self.key}.{split if split != 'train' else 'test'}_fraction."
                )
        if classes and (absent := sorted(set(classes) - set(by_split["train"].columns[label]))):
            raise GraftError(f"{self.key}: no row of class {absent[0]!r} is left for training.")


def check_columns(key: str, wanted: Sequence[str], table: Table) -> None:
    """Raise GraftError for a column that a table does not have."""
    for name in wanted:
        if name not in table.columns:
            known = ", ".join(table.columns)
            raise GraftError(f"{key}: {table.file} has no column {name!r}. Columns: {known}.")


def with_classes(table: Table, label: str, classes: Sequence[str]) -> Table:
    """The rows whose label is one of the training split's classes."""
    labels = table.columns[label]
    wrong = np.array([value not in classes for value in labels], dtype=bool)
    known = ", ".join(classes[:CLASSES_SHOWN]) + (", ..." if len(classes) > CLASSES_SHOWN else "")
    return table.without(wrong, lambda index: f"label {labels[index]!r} is no class of the training split: {known}")


def without_bad(table: Table) -> Table:
    """The same rows, with nothing said of those that were left out."""
    return Table(table.file, table.columns, table.lines)


def with_numbers(table: Table, columns: Columns) -> Table:
    """The rows whose values in numeric columns are numbers, or missing."""
    for column in columns.numeric:
        values = table.columns[column.name]
        numbers, wrong = to_numbers(values)
        wrong |= np.abs((numbers - column.mean) / column.std) > LARGEST
        table = table.without(wrong, functools.partial(wrong_number, values, column.name))
    return table


def wrong_number(values: np.ndarray, name: str, index: int) -> str:
    """What is wrong with a value of a numeric column."""
    text = str(values[index])
    return f"{text!r} in {name!r} is {'too large' if np.isfinite(number(text)) else 'no number'}"


def kind_of(values: np.ndarray, few_values: int) -> str:
    """Whether a column's training values are numbers, or categories; a few whole numbers are categories."""
    numbers, wrong = to_numbers(values)
    known = numbers[~np.isnan(numbers)]
    if wrong.sum() > (1 - NUMBERS_SHARE) * (len(known) + wrong.sum()):
        return CATEGORICAL
    whole = bool((known == np.round(known)).all())
    return CATEGORICAL if whole and len(np.unique(known)) <= few_values and not wrong.any() else NUMERIC


def fit_numbers(name: str, values: np.ndarray) -> Column | None:
    """Mean, standard deviation and median of a column's training values; None where it is constant."""
    numbers, _ = to_numbers(values)
    known = numbers[~np.isnan(numbers)]
    varies = len(np.unique(known)) > 1
    if not varies and (not len(known) or len(known) == len(numbers)):
        return None
    std = float(known.std()) if varies else 1.0
    return Column(name, NUMERIC, mean=float(known.mean()), std=std or 1.0, median=float(np.median(known)))


def fit_categories(name: str, values: np.ndarray) -> Column | None:
    """The categories of a column's training values; None where it is constant."""
    found = set(to_texts(values))
    if len(found) < 2:
        return None
    return Column(name, CATEGORICAL, tuple(sorted(found - {None})))


def encode(table: Table, columns: Columns) -> TableRows:
    """A table's rows as numbers and codes."""
    numbers = np.empty((len(table), len(columns.numeric)))
    for index, column in enumerate(columns.numeric):
        numbers[:, index] = (to_numbers(table.columns[column.name])[0] - column.mean) / column.std
    codes = np.empty((len(table), len(columns.categorical)), dtype=np.int64)
    for index, column in enumerate(columns.categorical):
        known = {None: MISSING} | {name: code for code, name in enumerate(column.categories, start=FIRST)}
        codes[:, index] = [known.get(value, UNKNOWN) for value in to_texts(table.columns[column.name])]
    return TableRows(columns, torch.from_numpy(numbers).float(), torch.from_numpy(codes))


def contents_of(table: Table, names: Sequence[str]) -> list[bytes]:
    """What each row holds in some columns, to compare with other rows."""
    columns = np.empty((len(table), len(names)), dtype=np.int64)
    for index, name in enumerate(names):
        values = table.columns[name]
        if values.dtype == object:
            codes = {value: seed_of(value) for value in set(values)}
            columns[:, index] = [codes[value] for value in values]
        else:
            columns[:, index] = values.view(np.int64)
    return [row.tobytes() for row in columns]


def labels_of(labels: np.ndarray, classes: Sequence[str] | None) -> Tensor:
    """Classes int64 `(N,)` or numbers float32 `(N,)`."""
    if classes is None:
        return torch.tensor(labels, dtype=torch.float32)
    indices = {name: index for index, name in enumerate(classes)}
    return torch.tensor([indices[label] for label in labels], dtype=torch.int64)
