"""Tables: columns of numbers and categories, fitted on training rows."""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from graft.config.types import Natural
from graft.data.domain import Domain
from graft.data.readers.counts import are_counts, columns_of_numbers, with_shares
from graft.data.readers.label_columns import yes_or_no
from graft.data.readers.numbers import LARGEST, are_whole, known_numbers, number
from graft.data.readers.numerals import SHARE, decimal_sign, read_numerals, share_of_numerals
from graft.data.readers.table import Table, TablePart, column_name, to_numbers, to_texts
from graft.data.samples import SIZE_OF_DIGEST, Digests, Modality, Places, Raw, Samples, part_of, sha256
from graft.errors import GraftError, hydra_value, listed, override
from graft.inputs.columns import CATEGORICAL, FIRST, MISSING, NUMERIC, UNKNOWN, Column, Columns
from graft.inputs.table import TableRows

ROW_NAMES = re.compile(r"(.*[_ .-])?(id|idx|index|row|rows|nr|no|number|rownum|rowid|row_number)|.*[a-z]ID|#", re.I)
NAMES_SHOWN = 5
ROWS_TOGETHER = 4096  # whose values are hashed one after the other
MANY_CATEGORIES = 0.5  # categories over rows from which a column is probably a name or a number of the row
TABLES = ("breast_cancer", "diabetes", "iris", "wine")  # of scikit-learn


class TableSource(Domain):
    """Rows with a label each; how a column is read follows from its training values, unless a key says so."""

    modality: Modality = "table"
    noun = "rows"
    reads_beside = True
    copies_stay_together = False  # where there are few categories, equal rows need not be copies

    def __init__(
        self,
        label: str | int | Sequence[str | int],
        class_names: Sequence[str | int] | None = None,
        numeric: Sequence[str] = (),
        categorical: Sequence[str] = (),
        ignore: Sequence[str] = (),
        few_values: Natural = 5,
        decimal: Literal[".", ","] | None = None,
        row_norm: Literal["l1"] | None = None,
        **settings: Any,
    ) -> None:
        """`label` is a column's name or index, several of them for `multilabel`; `class_names` of its values in order.

        A column of `few_values` different whole numbers or less is one of categories, unless it is one of many that
        count things, or `row_norm` makes it one of shares.
        """
        super().__init__(**settings)
        self.label = label
        self.class_names = None if class_names is None else tuple(str(name) for name in class_names)
        self.kinds = {**dict.fromkeys(numeric, NUMERIC), **dict.fromkeys(categorical, CATEGORICAL)}
        self.ignore = tuple(ignore)
        self.few_values = few_values
        self.decimal = decimal
        self.decimal_sign: str | None = None  # that the numbers are written with, once they are read
        self.row_norm = row_norm
        self.counts: list[str] = []  # columns that count things, once they are read
        self.other: TableSource | None = None  # of a transfer
        self.joint_kinds: dict[str, str] | None = None  # of the columns that the other side has too

    @property
    def advice(self) -> str:
        """The key of the labels' column."""
        return f"Choose another column: {self.key}.label=<name or number>"

    def beside(self, other: Domain) -> None:
        """Read columns that another table has too in the way that suits both, so that their weights can be shared."""
        self.other = other if isinstance(other, TableSource) else None

    def reading(self) -> Mapping[str, Any]:
        """How numbers and missing values are written, what is done to them, and how a file is laid out."""
        return {
            "decimal": self.decimal_sign,
            "shares": self.counts if self.row_norm else [],
            **getattr(self, "options", {}),
        }

    def tables(self) -> dict[str, Table]:
        """The table of each official split, `train` alone where there is none."""
        raise NotImplementedError

    def read(self) -> Raw:
        """The rows of every split; raises GraftError for columns that are not there."""
        tables, labels, notes = self._prepared()
        self._refuse_columns(tables, labels)
        self._decide_joint_kinds(tables["train"])
        multilabel = self.label_kind == "multilabel"
        splits = {name: self._samples(table, labels) for name, table in tables.items()}
        return Raw(splits, tuple(labels) if multilabel else None, notes)

    def _prepared(self) -> tuple[dict[str, Table], list[str], tuple[str, ...]]:
        """Tables with numbers written plainly and without what only numbers their rows, their labels, and notes."""
        tables = self.tables()
        train = tables["train"]
        labels = self._labels_in(train)
        skip = () if self.label_kind == "numbers" else labels
        features = replace(train, columns={n: v for n, v in train.columns.items() if n not in (*skip, *self.ignore)})
        self.decimal_sign = decimal = self.decimal or decimal_sign(features)
        read = {name: read_numerals(table, decimal, skip) for name, table in tables.items()}
        examples = {name: example for name, example in read["train"][1].items() if name not in self.ignore}
        left_out, row_names, suspects = self._row_names(features, labels)
        notes = []
        if examples:
            shown = ", ".join(f"{name!r} ({example})" for name, example in list(examples.items())[:NAMES_SHOWN])
            more = f" and {len(examples) - NAMES_SHOWN:,} more columns" if len(examples) > NAMES_SHOWN else ""
            other = "." if decimal == "," else ","
            notes.append(
                f"numbers written another way: {shown}{more}; {override(f'{self.key}.decimal', other)} reads them "
                f"with a decimal {'point' if other == '.' else 'comma'}"
            )
        if left_out:
            notes.append(f"left out, it only numbers the rows: {', '.join(map(repr, left_out))}")
        if row_names:
            notes.append(
                f"left out, whole numbers that name the rows: {', '.join(map(repr, row_names))}; "
                f"{override(f'{self.key}.numeric', [*self._of_kind(NUMERIC), *row_names])} reads them as numbers"
            )
        if suspects:
            notes.append(
                f"{', '.join(map(repr, suspects))} counts the rows up or down: if that is their number, "
                f"{override(f'{self.key}.ignore', [*self.ignore, *suspects])} leaves it out"
            )
        out = {*left_out, *row_names}
        kept = {
            name: replace(table, columns={n: v for n, v in table.columns.items() if n not in out})
            for name, (table, _) in read.items()
        }
        numbers = columns_of_numbers(kept["train"], self._free(kept["train"], labels))
        self.counts = numbers if self.row_norm or are_counts(kept["train"], numbers) else []
        if self.counts and not self.row_norm:
            notes.append(
                f"{len(self.counts):,} columns count things, so they are numbers however few values they have; "
                f"{override(f'{self.key}.row_norm', 'l1')} divides each row by its sum"
            )
        if self.row_norm:
            kept = {name: with_shares(table, self.counts) for name, table in kept.items()}
        return kept, labels, tuple(notes)

    def _free(self, train: Table, labels: Sequence[str]) -> list[str]:
        """Features that no key gives a kind or a use."""
        out = {*labels, *self.ignore, *self._of_kind(CATEGORICAL), *(self.split.get(key) for key in ("group", "time"))}
        return [name for name in train.columns if name not in out]

    def _labels_in(self, table: Table) -> list[str]:
        """Names of the labels' columns; one, where samples have one label each."""
        columns = [self.label] if isinstance(self.label, str | int) else self.label
        several = not isinstance(self.label, str | int)
        if several != (self.label_kind == "multilabel"):
            wanted = "[a, b]" if self.label_kind == "multilabel" else "outcome"
            raise GraftError(
                f"{self.key}.label={hydra_value(self.label)}: with {self.key}.label_kind={self.label_kind} it is "
                f"{'a list of columns' if self.label_kind == 'multilabel' else 'one column'}, such as {wanted}."
            )
        return [column_name(table, column, f"{self.key}.label") for column in columns]

    def _of_kind(self, kind: str) -> list[str]:
        """The columns that a key gives a kind."""
        return [name for name, own in self.kinds.items() if own == kind]

    def _row_names(self, table: Table, labels: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
        """Columns that only number the rows, that are called so and do, and that may: no feature, or a leak."""
        wanted = {*self.kinds, *labels, *(self.split.get(key) for key in ("group", "time"))}
        names = [name for name in table.columns if name not in wanted]
        index = [name for name in names if name in table.index]
        counting = [name for name in names if name not in index and counts_rows(*table.numbers(name))]
        called = [name for name in counting if ROW_NAMES.fullmatch(name)]
        suspects = [n for n in counting if n not in called and is_sorted(table.numbers(n)[0])]
        return index, called, suspects

    def _samples(self, table: Table, labels: Sequence[str]) -> Samples:
        """A table's rows, with its other columns as inputs."""
        features = {name: v for name, v in table.columns.items() if name not in labels and name not in self.ignore}
        wanted = [self.split[key] for key in ("group", "time") if self.split.get(key) in table.columns]
        if self.label_kind == "multilabel":
            found, problems = yes_or_no(table, labels)
        else:
            found, problems = to_texts(table.columns[labels[0]]).tolist(), {}
        return Samples(
            inputs=replace(table, columns=features, bad={}),
            labels=found,
            places=Places(f"{table.file}, row ", table.lines),
            contents=contents_of(table, list(features)),
            problems=problems,
            columns={name: to_texts(table.columns[name]).tolist() for name in wanted},
            unread=[(f"{table.file}, row {line}", problem) for line, problem in sorted(table.bad.items())],
        )

    def _refuse_columns(self, tables: dict[str, Table], labels: Sequence[str]) -> None:
        """Raise GraftError for columns that a key names and the file lacks, or an official split lacks."""
        names = [name for name in tables["train"].columns if name not in (*labels, *self.ignore)]
        for key in ("numeric", "categorical"):
            check_columns(f"{self.key}.{key}", self._of_kind(key), tables["train"])
        check_columns(f"{self.key}.ignore", self.ignore, tables["train"])
        for key in ("group", "time"):
            check_columns(f"{self.key}.split.{key}", [n for n in [self.split.get(key)] if n], tables["train"])
        for table in tables.values():
            check_columns(self.key, [*names, *labels], table)
        self.check_features(tables["train"], names, labels)

    def check_features(self, table: Table, names: Sequence[str], labels: Sequence[str]) -> None:
        """Raise GraftError where nothing is left beside the labels."""
        if not names:
            raise GraftError(
                f"{self.key}: {table.file} has no column beside the label {' and '.join(map(repr, labels))}."
            )

    def strata(self, labels: Tensor, classes: Sequence[str] | None) -> Tensor:
        """Classes numbered in the order of their names as texts, on which the splits of published seeds depend."""
        assert classes is not None
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
        tables = {name: table_part(samples) for name, samples in splits.items()}
        columns, notes = self._fit(tables["train"])
        fitted = sha256([repr(columns).encode()])
        rows, problems = encode_splits(tables, columns)
        encoded = {
            name: replace(samples, inputs=rows[name], problems=problems[name], fitted=fitted)
            for name, samples in splits.items()
        }
        return encoded, {
            "notes": notes,
            "backbone_arguments": {"columns": columns},
        }

    def _fit(self, train: TablePart) -> tuple[Columns, tuple[str, ...]]:
        """What the training rows say of the columns, and what a reader should know of it."""
        joint, counts = self.joint_kinds or {}, {*self.counts}
        columns, constant, names, commas = [], [], [], []
        for name in train.table.columns:
            numbers, wrong = train.numbers(name)
            kind = NUMERIC if name in counts else self.kinds.get(name) or joint.get(name)
            kind = kind or kind_of(numbers, train.column(name)[wrong] if wrong.any() else (), self.few_values)
            column = fit_numbers(name, numbers, wrong) if kind == NUMERIC else fit_categories(name, train.column(name))
            if column is None:
                constant.append(name)
                continue
            columns.append(column)
            if len(column.categories) > MANY_CATEGORIES * len(train):
                values = train.column(name)
                if values.dtype == object and max(share_of_numerals(values, sign) for sign in ".,") >= SHARE:
                    commas.append(name)
                else:
                    names.append(name)
        if not columns:
            file = train.table.file
            raise GraftError(f"{self.key}: every column of {file} is constant: there is nothing to learn from.")
        found = Columns(columns)
        notes = [
            f"{len(found.numeric)} numeric and {len(found.categorical)} categorical columns, fitted on the training "
            "split alone (all of it, whatever the label budget)"
        ]
        notes += [f"left out, constant in training: {listed(constant, NAMES_SHOWN)}"] if constant else []
        if commas:
            notes.append(
                f"{listed(commas, NAMES_SHOWN)} look like numbers of another notation and count as categories: "
                f"{self.key}.decimal is their decimal sign, {override(f'{self.key}.decimal', ',')} a comma"
            )
        if names:
            first = next(column for column in columns if column.name == names[0])
            number = f"{len(first.categories):,} categories in {len(train):,} training rows"
            notes.append(
                f"{listed(names, NAMES_SHOWN)} has {number}: is it the row's name? "
                f"{override(f'{self.key}.ignore', [*self.ignore, *names])} leaves it out"
            )
        return found, tuple(notes)

    def _decide_joint_kinds(self, own: Table) -> None:
        """Kinds of the columns that both sides of a transfer have, by the values of both; for both sides."""
        if self.other is None or self.joint_kinds is not None:
            return
        theirs = self.other._prepared()[0]["train"]
        shared = [name for name in own.columns if name in theirs.columns]
        few = max(self.few_values, self.other.few_values)
        self.joint_kinds = {
            name: self.kinds.get(name)
            or self.other.kinds.get(name)
            or joint_kind(own.columns[name], theirs.columns[name], few)
            for name in shared
        }
        self.other.joint_kinds = self.joint_kinds | {n: k for n, k in self.other.kinds.items() if n in shared}


def joint_kind(own: np.ndarray, theirs: np.ndarray, few_values: int) -> str:
    """Whether the values of one column on both sides are numbers, or categories."""
    values = np.concatenate([own, theirs] if own.dtype == theirs.dtype else [to_texts(own), to_texts(theirs)])
    numbers, wrong = to_numbers(values)
    return kind_of(numbers, values[wrong], few_values)


def counts_rows(numbers: np.ndarray, wrong: np.ndarray) -> bool:
    """Whether a column holds a whole number for each row, no two the same, without gaps or in order."""
    if wrong.any() or len(numbers) < 2 or not are_whole(numbers):
        return False
    if len(np.unique(numbers)) < len(numbers):
        return False
    return np.ptp(numbers) == len(numbers) - 1 or is_sorted(numbers)


def is_sorted(numbers: np.ndarray) -> bool:
    """Whether a column of numbers rises or falls from row to row."""
    steps = np.sign(np.diff(numbers))
    return bool((steps == steps[0]).all() and steps[0] != 0)


def check_columns(key: str, wanted: Sequence[str], table: Table) -> None:
    """Raise GraftError for a column that a table does not have."""
    for name in wanted:
        if name not in table.columns:
            known = ", ".join(table.columns)
            raise GraftError(f"{key}: {table.file} has no column {name!r}. Columns: {known}.")


def wrong_number(values: np.ndarray, name: str, index: int) -> str:
    """What is wrong with a value of a numeric column."""
    text = str(values[index])
    return f"{text!r} in {name!r} is {'too large' if np.isfinite(number(text)) else 'no number'}"


def kind_of(numbers: np.ndarray, others: Iterable[Any], few_values: int) -> str:
    """Whether a column's training values are numbers, or categories; a few whole numbers are categories.

    `others` are the values that are neither missing nor a number of 32 bits.
    """
    known = known_numbers(numbers)
    counts = Counter(others)
    words = sum(times for value, times in counts.items() if not np.isfinite(number(str(value))))
    if words > (1 - SHARE) * (len(known) + counts.total()):
        return CATEGORICAL
    return CATEGORICAL if are_whole(known) and len(np.unique(known)) <= few_values and not counts else NUMERIC


def fit_numbers(name: str, numbers: np.ndarray, wrong: np.ndarray) -> Column | None:
    """Mean, standard deviation and median of a column's training values; None where it is constant."""
    known = known_numbers(numbers)
    varies = len(known) > 0 and bool((known != known[0]).any())
    if not len(known):
        return Column(name, NUMERIC) if wrong.any() else None  # its rows are bad
    if not varies and len(known) == len(numbers):
        return None
    std = float(known.std()) if varies else 1.0
    return Column(name, NUMERIC, mean=float(known.mean()), std=std or 1.0, median=float(np.median(known)))


def fit_categories(name: str, values: np.ndarray) -> Column | None:
    """The categories of a column's training values; None where it is constant."""
    found = set(to_texts(values))
    if len(found) < 2:
        return None
    return Column(name, CATEGORICAL, tuple(sorted(found - {None})))


def table_part(samples: Samples) -> TablePart:
    """A split's rows in the table that they were read in."""
    table, indices = part_of(samples)
    return TablePart(table, None if indices is None else indices.numpy())


def encode_splits(
    tables: Mapping[str, TablePart], columns: Columns
) -> tuple[dict[str, TableRows], dict[str, dict[int, str]]]:
    """`encode` and `wrong_values` of every split. A column that is encoded is forgotten: nothing is held twice."""
    problems: dict[str, dict[int, str]] = {name: {} for name in tables}

    def in_turn(some: Sequence[Column], dtype: type, encoded: Callable[[str, Column], np.ndarray]) -> dict[str, Any]:
        found: dict[str, np.ndarray] = {
            name: np.empty((len(some), len(table)), dtype=dtype) for name, table in tables.items()
        }
        for place, column in enumerate(some):
            for name in tables:
                found[name][place] = encoded(name, column)
            for whole in {id(one.table): one.table for one in tables.values()}.values():
                whole.give_back(column.name)
        return {name: row_by_row(values) for name, values in found.items()}

    numbers = in_turn(columns.numeric, np.float32, lambda name, one: numbers_of(tables[name], one, problems[name]))
    codes = in_turn(columns.categorical, np.int32, lambda name, one: codes_of(tables[name], one))
    return {name: TableRows(columns, numbers[name], codes[name].long()) for name in tables}, problems


def encode(table: Table, columns: Columns) -> TableRows:
    """A table's rows as numbers and codes."""
    rows, _ = encode_splits({"": TablePart(replace(table, columns=dict(table.columns)), None)}, columns)
    return rows[""]


def wrong_values(table: Table, columns: Columns) -> dict[int, str]:
    """By index the rows whose value in a numeric column is neither a number nor missing."""
    problems: dict[int, str] = {}
    for column in columns.numeric:
        numbers_of(TablePart(table, None), column, problems)
    return problems


def numbers_of(table: TablePart, column: Column, problems: dict[int, str]) -> np.ndarray:
    """A column's standardised numbers `(M,)`; the rows whose value is no number get a problem."""
    numbers, wrong = table.numbers(column.name)
    scaled = (numbers - column.mean) / column.std
    wrong = wrong | (np.abs(scaled) > LARGEST)
    if wrong.any():
        values = table.column(column.name)
        for index in wrong.nonzero()[0].tolist():
            problems.setdefault(index, wrong_number(values, column.name, index))
    return scaled


def codes_of(table: TablePart, column: Column) -> np.ndarray:
    """The codes `(M,)` of a column's categories."""
    known = {None: MISSING} | {name: code for code, name in enumerate(column.categories, start=FIRST)}
    values = to_texts(table.column(column.name))
    codes = {value: known.get(value, UNKNOWN) for value in set(values)}
    return np.fromiter(map(codes.__getitem__, values), np.int32, len(values))


def row_by_row(columns: np.ndarray) -> Tensor:
    """Columns `(C, N)` as `(N, C)`, some rows at a time, which stay in the processor's cache."""
    rows = np.empty(columns.shape[::-1], dtype=columns.dtype)
    for start in range(0, len(rows), ROWS_TOGETHER):
        rows[start : start + ROWS_TOGETHER] = columns[:, start : start + ROWS_TOGETHER].T
    return torch.from_numpy(rows)


def contents_of(table: Table, names: Sequence[str]) -> Digests:
    """A hash of what each row holds in some columns, to compare with other rows."""
    columns = [table.columns[name] for name in names]
    texts = [values for values in columns if values.dtype == object]
    numbers = [values for values in columns if values.dtype != object]
    found = np.empty((len(table), SIZE_OF_DIGEST), dtype=np.uint8)
    for start in range(0, len(table), ROWS_TOGETHER):
        some = slice(start, start + ROWS_TOGETHER)
        rows = bytes_of([values[some] for values in numbers], [values[some] for values in texts], len(found[some]))
        digests = b"".join(hashlib.sha256(row).digest() for row in rows)
        found[some] = np.frombuffer(digests, dtype=np.uint8).reshape(-1, SIZE_OF_DIGEST)
    return Digests(found)


def bytes_of(numbers: Sequence[np.ndarray], texts: Sequence[np.ndarray], rows: int) -> Iterator[bytes]:
    """What each row holds in columns of numbers and of texts."""
    some = np.empty((rows, len(numbers)))
    for place, values in enumerate(numbers):
        some[:, place] = values
    some += 0.0  # -0 is 0
    content, size = some.tobytes(), some.itemsize * len(numbers)
    words = (repr(row).encode() for row in zip(*(values.tolist() for values in texts), strict=True))
    for row, others in zip(range(rows), words if texts else itertools.repeat(b""), strict=False):
        yield content[row * size : (row + 1) * size] + others
