"""Tables: columns of numbers and categories, fitted on training rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graft.baselines.boosting import GradientBoosting
from graft.config.types import Natural
from graft.data.domain import Domain
from graft.data.readers.table import (
    LARGEST,
    Table,
    column_name,
    number,
    to_numbers,
    to_texts,
)
from graft.data.samples import Raw, Samples, rows_of, seed_of, sha256
from graft.errors import GraftError
from graft.inputs.columns import CATEGORICAL, FIRST, MISSING, NUMERIC, UNKNOWN, Column, Columns
from graft.inputs.table import TableRows

NUMBERS_SHARE = 0.9  # a column of texts counts as numbers where so many of its values are; the others are mistakes then
MANY_CATEGORIES = 0.5  # categories over rows from which a column is probably a name or a number of the row
TABLES = ("breast_cancer", "diabetes", "iris", "wine")  # of scikit-learn


class TableSource(Domain):
    """Rows with a label each; how a column is read follows from its training values, unless a key says so."""

    modality = "table"
    noun = "rows"
    copies_stay_together = False  # where there are few categories, equal rows need not be copies

    def __init__(
        self,
        label: str | int,
        class_names: Sequence[str | int] | None = None,
        numeric: Sequence[str] = (),
        categorical: Sequence[str] = (),
        ignore: Sequence[str] = (),
        few_values: Natural = 5,
        **settings: Any,
    ) -> None:
        """`label` is a column's name or index, `class_names` are those of its values in their order.

        A column of `few_values` different whole numbers or less is one of categories.
        """
        super().__init__(**settings)
        self.label = label
        self.class_names = None if class_names is None else tuple(str(name) for name in class_names)
        self.kinds = {**dict.fromkeys(numeric, NUMERIC), **dict.fromkeys(categorical, CATEGORICAL)}
        self.ignore = tuple(ignore)
        self.few_values = few_values

    @property
    def advice(self) -> str:
        """The key of the labels' column."""
        return f"Choose another column: {self.key}.label=<name or number>"

    def tables(self) -> dict[str, Table]:
        """The table of each official split, `train` alone where there is none."""
        raise NotImplementedError

    def read(self) -> Raw:
        """The rows of every split; raises GraftError for columns that are not there."""
        tables = self.tables()
        label = column_name(tables["train"], self.label, f"{self.key}.label")
        self._refuse_columns(tables, label)
        return Raw({name: self._samples(table, label) for name, table in tables.items()})

    def _samples(self, table: Table, label: str) -> Samples:
        """A table's rows, with its other columns as inputs."""
        features = {name: v for name, v in table.columns.items() if name != label and name not in self.ignore}
        wanted = [self.split[key] for key in ("group", "time") if self.split.get(key) in table.columns]
        return Samples(
            inputs=replace(table, columns=features, bad={}),
            labels=to_texts(table.columns[label]).tolist(),
            places=[f"{table.file}, row {line}" for line in table.lines.tolist()],
            contents=contents_of(table, list(features)),
            columns={name: to_texts(table.columns[name]).tolist() for name in wanted},
            unread=[(f"{table.file}, row {line}", problem) for line, problem in sorted(table.bad.items())],
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

    def strata(self, labels: Tensor, classes: Sequence[str] | None) -> Tensor:
        """Classes numbered in the order of their names as texts, on which the splits of published seeds depend."""
        order = {name: number for number, name in enumerate(sorted(classes))}
        return torch.tensor([order[name] for name in classes])[labels]

    def named(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Names for the label's values, in their order."""
        if self.class_names is None:
            return classes
        if len(self.class_names) != len(classes):
            raise GraftError(
                f"{self.key}.class_names=[{', '.join(self.class_names)}]: the label has {len(classes)} values, "
                f"{', '.join(classes)}. Give a name for each, in this order."
            )
        return self.class_names

    def encode(self, splits: Mapping[str, Samples]) -> tuple[dict[str, Samples], dict[str, Any]]:
        """Rows as numbers and codes, by what train says of the columns."""
        tables = {name: rows_of(samples) for name, samples in splits.items()}
        columns, notes = self._fit(tables["train"])
        fitted = sha256([repr(columns).encode()])
        encoded = {
            name: replace(
                samples,
                inputs=encode(tables[name], columns),
                problems=wrong_values(tables[name], columns),
                fitted=fitted,
            )
            for name, samples in splits.items()
        }
        return encoded, {
            "notes": notes,
            "backbone_arguments": {"columns": columns},
            "baseline": GradientBoosting(),
        }

    def _fit(self, train: Table) -> tuple[Columns, tuple[str, ...]]:
        """What the training rows say of the columns, and what a reader should know of it."""
        columns, constant, names = [], [], []
        for name, values in train.columns.items():
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
            "part alone (all of it, whatever the label budget)"
        ]
        notes += [f"left out, constant in training: {', '.join(constant)}"] if constant else []
        notes += [f"{line}: is it the row's name? {self.key}.ignore leaves it out" for line in names]
        return found, tuple(notes)


def check_columns(key: str, wanted: Sequence[str], table: Table) -> None:
    """Raise GraftError for a column that a table does not have."""
    for name in wanted:
        if name not in table.columns:
            known = ", ".join(table.columns)
            raise GraftError(f"{key}: {table.file} has no column {name!r}. Columns: {known}.")


def wrong_values(table: Table, columns: Columns) -> dict[int, str]:
    """By index the rows whose value in a numeric column is neither a number nor missing."""
    problems: dict[int, str] = {}
    for column in columns.numeric:
        values = table.columns[column.name]
        numbers, wrong = to_numbers(values)
        wrong |= np.abs((numbers - column.mean) / column.std) > LARGEST
        for index in wrong.nonzero()[0].tolist():
            problems.setdefault(index, wrong_number(values, column.name, index))
    return problems


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
