"""Reading a table as it stands in a file; what is wrong with a row is noted, and nothing is fitted."""

import csv
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from graft.errors import GraftError

PARQUET = (".parquet", ".pq")
NOT_READ = "\N{REPLACEMENT CHARACTER}"  # what stands for bytes that are no text in the file's encoding
ROWS_SHOWN = 3
LARGEST = float(np.finfo(np.float32).max)  # of the numbers that networks compute with


@dataclass(frozen=True)
class Table:
    """A column is an array `(N,)` of float64, NaN where one is missing, or of texts, None where one is missing.

    `lines` `(N,)` are the rows' numbers in the file, from 1, and `bad` what is wrong with rows that are left out.
    """

    file: str
    columns: dict[str, np.ndarray]
    lines: np.ndarray
    bad: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lines)

    def rows(self, indices: np.ndarray) -> "Table":
        """The rows at `indices`, or where a mask `(N,)` is true."""
        columns = {name: values[indices] for name, values in self.columns.items()}
        return replace(self, columns=columns, lines=self.lines[indices])

    def __getitem__(self, indices: Tensor) -> "Table":
        return self.rows(indices.numpy())


def read_table(
    path: Path, key: str, delimiter: str | None, header: bool, encoding: str, missing: Collection[str]
) -> Table:
    """A CSV or Parquet file; GraftError that names `key` where there is none or it holds no row."""
    if not path.is_file():
        raise GraftError(f"{key}={path}: no such file. Give a CSV or Parquet file: {key}=/path/to/table.csv")
    table = read_parquet(path, key) if path.suffix in PARQUET else read_csv(path, key, delimiter, header, encoding)
    if not len(table) and not table.bad:
        raise GraftError(f"{key}={path}: the file has no row of values. Give a table with a row for each sample.")
    none = {text.strip() for text in missing} | {""}
    return replace(table, columns={name: without_missing(values, none) for name, values in table.columns.items()})


def read_parquet(path: Path, key: str) -> Table:
    """A Parquet file, with pyarrow."""
    try:
        from pyarrow import ArrowException, parquet, types
    except ModuleNotFoundError:
        raise GraftError(
            f"{key}={path}: Parquet files need pyarrow. Install it: pip install 'graft[tabular]', or give a CSV file."
        ) from None
    try:
        content = parquet.read_table(path)
    except (OSError, ArrowException) as error:
        raise GraftError(
            f"{key}={path} cannot be read as Parquet: {str(error).splitlines()[0].rstrip('.')}. "
            f"Write it anew, or give a CSV file: {key}=/path/to/table.csv"
        ) from None
    check_names(content.column_names, path, key, "utf-8")
    columns = {}
    for name, values in zip(content.column_names, content.columns, strict=True):
        if types.is_integer(values.type) or types.is_floating(values.type) or types.is_decimal(values.type):
            numbers = [np.nan if value is None else float(value) for value in values.to_pylist()]
            columns[name] = np.array(numbers, dtype=np.float64)
        else:
            columns[name] = texts([None if value is None else str(value) for value in values.to_pylist()])
    return Table(str(path), columns, np.arange(1, len(content) + 1))


def read_csv(path: Path, key: str, delimiter: str | None, header: bool, encoding: str) -> Table:
    """A text file with a row a line; blank lines do not count. A row of another length than the first one is bad."""
    try:
        content = path.read_text(encoding, errors="replace")
    except LookupError:
        raise GraftError(
            f"{key.rpartition('.')[0]}.encoding={encoding}: no such encoding. Usual are utf-8, latin-1."
        ) from None
    except (OSError, UnicodeError) as error:
        raise GraftError(
            f"{key}={path} cannot be read as {encoding}: {str(error).splitlines()[0]}. Give a text file, or name its "
            f"encoding: {key.rpartition('.')[0]}.encoding=latin-1"
        ) from None
    try:
        rows = list(split_rows(content.removeprefix("\N{BYTE ORDER MARK}"), delimiter or default_delimiter(path)))
    except (TypeError, ValueError, csv.Error) as error:
        raise GraftError(
            f"{key}={path} cannot be read as CSV: {error}. Columns are separated by one character, such as "
            f"{key.rpartition('.')[0]}.delimiter=';', or by {key.rpartition('.')[0]}.delimiter=whitespace"
        ) from None
    if not rows:
        return Table(str(path), {}, np.array([], dtype=np.int64))
    first = rows[0][1]
    names = [name.strip() for name in first] if header else [f"column{number}" for number in range(len(first))]
    check_names(names, path, key, encoding)
    bad, kept = {}, []
    for line, row in rows[1:] if header else rows:
        if len(row) != len(names):
            bad[line] = f"{len(row)} values where there are {len(names)} columns"
        elif any(NOT_READ in value for value in row):
            bad[line] = f"not readable as {encoding}; try {key.rpartition('.')[0]}.encoding=latin-1"
        else:
            kept.append((line, row))
    columns = {name: texts([row[place].strip() for _, row in kept]) for place, name in enumerate(names)}
    return Table(str(path), columns, np.array([line for line, _ in kept], dtype=np.int64), bad)


def split_rows(content: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The number and the values of every line that is not blank."""
    if delimiter == "whitespace":
        yield from ((n, line.split()) for n, line in enumerate(content.splitlines(), start=1) if line.strip())
        return
    reader = csv.reader(content.splitlines(keepends=True), delimiter=delimiter)
    yield from ((reader.line_num, row) for row in reader if any(value.strip() for value in row))


def default_delimiter(path: Path) -> str:
    """What separates the values of a file of that name."""
    return "\t" if path.suffix in (".tsv", ".tab") else ","


def check_names(names: Sequence[str], path: Path, key: str, encoding: str) -> None:
    """Raise GraftError for a header that names a column twice, or not at all, or in another encoding."""
    if any(NOT_READ in name for name in names):
        raise GraftError(
            f"{key}={path}: the header is not readable as {encoding}. Try {key.rpartition('.')[0]}.encoding=latin-1."
        )
    seen = [name.replace(".", "_") for name in names]  # as the modules of a backbone are named
    for place, name in enumerate(seen):
        if not name or name in seen[:place]:
            what = f"names {names[place]!r} twice" if name else f"has no name for column {place}"
            raise GraftError(f"{key}={path}: the header {what}. Every column needs a name of its own.")


def texts(values: Sequence[str | None]) -> np.ndarray:
    """An array of texts of any length."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def without_missing(values: np.ndarray, none: Collection[str]) -> np.ndarray:
    """Texts with None in the place of words that mean no value."""
    return values if values.dtype != object else texts([None if value in none else value for value in values])


def column_name(table: Table, column: str | int, key: str) -> str:
    """The name of a column, which may be given by its place, from 0 or from -1 backwards; messages name the `key`."""
    names = list(table.columns)
    if isinstance(column, int) and -len(names) <= column < len(names):
        return names[column]
    if column in names:
        return column
    raise GraftError(
        f"{key}={column}: {table.file} has no such column. Columns: {', '.join(names) or 'none'}. "
        f"Name one of them, {key}=<name>, or what separates the columns, {key.rpartition('.')[0]}.delimiter=';'"
    )


def to_numbers(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers `(N,)`, NaN where there is none, and a mask of what is neither missing nor a number of 32 bits."""
    if values.dtype != object:
        numbers, given = values, ~np.isnan(values)
    else:
        numbers = np.array([number(value) for value in values], dtype=np.float64)
        given = np.array([value is not None and not is_nan(value) for value in values], dtype=bool)
    finite = np.abs(numbers) <= LARGEST
    return np.where(finite, numbers, np.nan), given & ~finite


def number(text: str | None) -> float:
    """The number in a text; NaN where it holds none."""
    try:
        return float("nan" if text is None else text)
    except ValueError:
        return float("nan")


def is_nan(text: str) -> bool:
    """Whether a text says itself that it is no number."""
    return text.strip().lower().lstrip("+-") == "nan"


def to_texts(values: np.ndarray) -> np.ndarray:
    """Texts `(N,)`, None where one is missing; whole numbers without a point."""
    if values.dtype == object:
        return values
    return texts([None if np.isnan(v) else str(int(v)) if float(v).is_integer() else repr(float(v)) for v in values])
