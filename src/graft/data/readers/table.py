"""Reading a table as it stands in a file; what is wrong with a row is noted, and nothing is fitted."""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from graft.data.readers.numbers import LARGEST, number
from graft.data.readers.plain_csv import read_plain
from graft.data.readers.workbook import WORKBOOK, csv_of
from graft.errors import GraftError, first_line, override, printable

PARQUET, PARQUET_NAMES = b"PAR1", (".parquet", ".pq")
COMPRESSED: dict[re.Pattern[bytes], Callable[..., Any]] = {  # by their first bytes
    re.compile(rb"\x1f\x8b"): gzip.open,
    re.compile(rb"BZh\d1AY&SY"): bz2.open,
    re.compile(rb"\xfd7zXZ\0"): lzma.open,
}
UNREADABLE = (OSError, ValueError, EOFError, lzma.LZMAError, zlib.error)  # what damaged files raise
BEGINNING = 16  # bytes by which files are told apart
PACKED_NAMES = (".bz2", ".gz", ".xz")  # endings behind that of the table itself
EXCEL = "Save the sheet as CSV"
OTHER_FILES = {  # by their first bytes: what they are, and what to do
    WORKBOOK: ("an Excel workbook (.xlsx) or a zip archive", EXCEL),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook of an old kind (.xls)", EXCEL),
    b"ARROW1": ("a Feather file", "Write it as Parquet or CSV"),
    b"\x89HDF": ("an HDF5 file", "Write it as Parquet or CSV"),
    b"SQLite format 3": ("an SQLite database", "Write a table of it as Parquet or CSV"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "Decompress it"),
    b"%PDF": ("a PDF document", "Give a CSV or Parquet file"),
}
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
NOT_READ = "\N{REPLACEMENT CHARACTER}"  # what stands for bytes that are no text in the file's encoding
NAMELESS = "Unnamed:"  # as pandas calls columns without a name
NAMELESS_COLUMN = re.compile(r"Unnamed: \d+.*|__index_level_\d+__")
LONGEST_FIELD = 2**30  # characters of a value; the library takes 2**17, which a document or a picture may exceed
SEPARATORS = (";", "\t", "|", ",")
DELIMITERS = {"\t": "tab"}  # how the config calls what cannot be typed
MOSTLY = 0.5  # share of the rows from which on the file is at fault, not its rows


@dataclass(frozen=True)
class Table:
    """A column is an array `(N,)` of float64, NaN where one is missing, or of texts, None where one is missing.

    `lines` `(N,)` are the rows' numbers in the file, from 1, `bad` what is wrong with rows that are left out, and
    `index` names the columns that only number the rows: a data frame's index, and columns without a name.
    """

    file: str
    columns: dict[str, np.ndarray]
    lines: np.ndarray
    bad: dict[int, str] = field(default_factory=dict)
    index: tuple[str, ...] = ()
    points: bool = False  # whether columns of float64 stood in a text file, with a decimal point
    _numbers: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.lines)

    def rows(self, indices: np.ndarray) -> "Table":
        """The rows at `indices`, or where a mask `(N,)` is true."""
        columns = {name: values[indices] for name, values in self.columns.items()}
        known = {
            name: (columns[name], columns[name] if numbers is values else numbers[indices], wrong[indices])
            for name, (values, numbers, wrong) in self._numbers.items()
            if values is self.columns.get(name)
        }
        return replace(self, columns=columns, lines=self.lines[indices], _numbers=known)

    def numbers(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """`to_numbers` of a column, found once for these rows and all parts of them."""
        values = self.columns[name]
        known = self._numbers.get(name)
        if known is None or known[0] is not values:  # of a column that was replaced
            numbers, wrong = map(small_if_constant, to_numbers(values))
            known = self._numbers[name] = (values, numbers, wrong)
        return known[1:]

    def give_back(self, name: str) -> None:
        """Forget a column that nobody needs any more, and with it its memory."""
        del self.columns[name]
        self._numbers.pop(name, None)

    def __getitem__(self, indices: Tensor) -> "Table":
        return self.rows(indices.numpy())


@dataclass(frozen=True)
class TablePart:
    """Some rows of a table, of which a column is taken when it is asked for: no two of them are held twice."""

    table: Table
    indices: np.ndarray | None  # `(M,)` of the rows; None: all

    def __len__(self) -> int:
        return len(self.table) if self.indices is None else len(self.indices)

    def column(self, name: str) -> np.ndarray:
        """The values of a column `(M,)`."""
        return self._taken(self.table.columns[name])

    def numbers(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """`to_numbers` of a column."""
        numbers, wrong = self.table.numbers(name)
        return self._taken(numbers), self._taken(wrong)

    def _taken(self, values: np.ndarray) -> np.ndarray:
        return values if self.indices is None else values[self.indices]


def read_table(
    path: Path,
    key: str,
    delimiter: str | None,
    header: bool,
    encoding: str,
    missing: Collection[str],
    words: Collection[str | int] | None = None,
) -> Table:
    """A CSV or Parquet file, or an Excel workbook; GraftError that names `key` where there is none or it has no row.

    Columns of a CSV file are texts. Where `words` are given, columns of numbers with a decimal point need not be, but
    for those, by name or by place.
    """
    if not path.is_file():
        what = "that is a folder" if path.is_dir() else "no such file"
        raise GraftError(f"{key}={path}: {what}. Give a CSV or Parquet file: {key}=/path/to/table.csv")
    none = {text.strip() for text in missing} | {""}
    if words is not None and encoding.lower() in ("utf-8", "utf8"):
        plain = plain_table(path, key, delimiter or default_delimiter(path), header, none, words)
        if plain is not None:
            return plain
    content = content_of(path, key, taken=(WORKBOOK,))
    if content.startswith(PARQUET) or path.suffix.lower() in PARQUET_NAMES:
        table = read_parquet(path, content, key)
    elif content.startswith(WORKBOOK):
        table = read_csv(path, csv_of(path, content, key).encode(), key, ",", header, "utf-8")
    else:
        table = read_csv(path, content, key, delimiter, header, encoding)
    if not len(table) and not table.bad:
        raise GraftError(f"{key}={path}: the file has no row of values. Give a table with a row for each sample.")
    return replace(table, columns={name: without_missing(values, none) for name, values in table.columns.items()})


def opened(path: Path) -> Any:
    """A file of bytes, decompressed as it is read."""
    with path.open("rb") as file:
        beginning = file.read(BEGINNING)
    opener = next((opener for begins, opener in COMPRESSED.items() if begins.match(beginning)), Path.open)
    return opener(path, "rb")


def content_of(path: Path, key: str, taken: Collection[bytes] = ()) -> bytes:
    """A file's bytes, decompressed; GraftError for what is known to be no table and begins with none of `taken`."""
    try:
        with opened(path) as file:
            content = file.read()
    except UNREADABLE as error:
        raise GraftError(
            f"{key}={path}: it cannot be read ({first_line(error)}). Give a whole file: {key}=/path/to/table.csv"
        ) from None
    for beginning, (what, advice) in OTHER_FILES.items():
        if content.startswith(beginning) and beginning not in taken:
            raise GraftError(f"{key}={path}: this is {what}. {advice}: {key}=/path/to/table.csv")
    return content


def read_parquet(path: Path, content: bytes, key: str) -> Table:
    """A Parquet file, with pyarrow."""
    try:
        from pyarrow import ArrowException, BufferReader, parquet, types
    except ModuleNotFoundError:
        raise GraftError(
            f"{key}={path}: Parquet files need pyarrow. Install it: pip install pyarrow, or give a CSV file."
        ) from None
    try:
        found = parquet.read_table(BufferReader(content))
    except (OSError, ArrowException) as error:
        raise GraftError(
            f"{key}={path} cannot be read as Parquet: {first_line(error)}. "
            f"Write it again, or give a CSV file: {key}=/path/to/table.csv"
        ) from None
    check_names(found.column_names, path, key)
    columns = {}
    for name, values in zip(found.column_names, found.columns, strict=True):
        if types.is_integer(values.type) or types.is_floating(values.type):
            columns[name] = values.cast("float64", safe=False).to_numpy()
        elif types.is_decimal(values.type):
            numbers = [np.nan if value is None else float(value) for value in values.to_pylist()]
            columns[name] = np.array(numbers, dtype=np.float64)
        else:
            columns[name] = texts([None if value is None else str(value).strip() for value in values.to_pylist()])
    index = (found.schema.pandas_metadata or {}).get("index_columns", ())
    kept = tuple(name for name in index if isinstance(name, str) and name in columns)
    return Table(str(path), columns, np.arange(1, len(found) + 1), index=kept)


def read_csv(
    path: Path,
    content: bytes,
    key: str,
    delimiter: str | None,
    header: bool,
    encoding: str,
) -> Table:
    """A text file with a row a line; blank lines do not count. A row of another length than the first one is bad."""
    delimiter = delimiter or default_delimiter(path)
    text = decoded(path, content, key, encoding).removeprefix("\N{BYTE ORDER MARK}")
    source = key.rpartition(".")[0]
    try:
        rows = list(split_rows(text, delimiter))
    except UnclosedError as error:
        raise GraftError(f"{key}={path}, row {error.line}: {error}") from None
    except (TypeError, ValueError, csv.Error) as error:
        raise GraftError(
            f"{key}={path} cannot be read as CSV: {error}. Columns are separated by one character, such as "
            f"{override(f'{source}.delimiter', ';')}, or by {source}.delimiter=whitespace"
        ) from None
    if not rows:
        return Table(str(path), {}, np.array([], dtype=np.int64))
    first = rows[0][1]
    names = [name.strip() for name in first]
    rows = rows[1:] if header else rows
    if header and rows and all(len(row) == len(names) + 1 for _, row in rows):  # as R writes the names of rows
        names = ["", *names]
    if header and NOT_READ in "".join(names):
        raise GraftError(f"{key}={path}: the header is not readable as {encoding}; {encoding_advice(content, source)}")
    names = names_of(names, header, path, key)
    bad, kept = {}, []
    for line, row in rows:
        joined = "".join(row)
        if len(row) != len(names):
            bad[line] = f"{len(row)} values where there are {len(names)} columns"
        elif NOT_READ in joined:
            bad[line] = f"not readable as {encoding}; {encoding_advice(content, source)}"
        elif "\0" in joined:
            bad[line] = "it holds a NUL byte"
        elif "\n" in joined and (swallowed := rows_within(row, delimiter)):
            bad[line] = f"a quote opens here and closes {swallowed} rows later"
        else:
            kept.append((line, row))
    unread = sum(problem.startswith("not readable") for problem in bad.values())
    if unread > MOSTLY * len(rows):
        raise GraftError(
            f"{key}={path}: {unread:,} of {len(rows):,} rows are not readable as {encoding}; "
            f"{encoding_advice(content, source)}"
        )
    lengths = Counter(len(row) for _, row in rows if len(row) != len(names))
    if sum(lengths.values()) > MOSTLY * len(rows):
        raise GraftError(
            f"{key}={path}: {sum(lengths.values()):,} of {len(rows):,} rows have another number of values than the "
            f"{len(names)} columns of the first line, mostly {lengths.most_common(1)[0][0]}. Name what separates the "
            f"columns, {override(f'{source}.delimiter', ';')}, or correct the file."
        )
    values = zip(*(row for _, row in kept), strict=True) if kept else [[]] * len(names)
    columns = {name: texts([value.strip() for value in column]) for name, column in zip(names, values, strict=True)}
    lines = np.array([line for line, _ in kept], dtype=np.int64)
    return Table(str(path), columns, lines, bad, nameless(names, header))


def plain_table(
    path: Path, key: str, delimiter: str, header: bool, missing: Collection[str], words: Collection[str | int]
) -> Table | None:
    """A text file of which every line is a row (see graft.data.readers.plain_csv); None for another."""

    def places_of_words(first: Sequence[str]) -> set[int]:
        names = names_of(first, header, path, key)
        return {place for place, name in enumerate(names) if {name, place, place - len(names)} & {*words}}

    if path.suffix.lower() in PARQUET_NAMES:
        return None
    sign = "\t" if delimiter == DELIMITERS["\t"] else delimiter
    try:
        with opened(path) as file:
            if file.peek(BEGINNING).startswith((PARQUET, *OTHER_FILES)):
                return None
            plain = read_plain(file, path.stat().st_size, sign, header, missing, places_of_words)
    except UNREADABLE:  # whoever reads the whole file says what is wrong
        return None
    if plain is None:
        return None
    names = names_of(plain.first, header, path, key)
    return Table(
        str(path),
        dict(zip(names, plain.columns, strict=True)),
        np.arange(plain.rows) + 1 + header,
        index=nameless(names, header),
        points=any(one.dtype != object for one in plain.columns),
    )


def names_of(first: Sequence[str], header: bool, path: Path, key: str) -> list[str]:
    """Names of the columns, which stand in the first row where there is a header. GraftError for a name twice."""
    given = [name.strip() or f"{NAMELESS} {place}" for place, name in enumerate(first)]
    names = given if header else [f"column{place}" for place in range(len(first))]
    check_names(names, path, key)
    return names


def nameless(names: Sequence[str], header: bool) -> tuple[str, ...]:
    """The columns that have no name in a header."""
    return tuple(name for name in names if NAMELESS_COLUMN.fullmatch(name)) if header else ()


def decoded(path: Path, content: bytes, key: str, encoding: str) -> str:
    """The text of a file; GraftError for an encoding that does not exist or is another than the file's."""
    source = key.rpartition(".")[0]
    try:
        wide = codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))
        text = content.decode(encoding, errors="strict" if wide else "replace")
    except LookupError:
        raise GraftError(
            f"{source}.encoding={encoding}: no such encoding. Usual are utf-8, latin-1, cp1252, utf-16."
        ) from None
    except UnicodeError as error:
        raise GraftError(
            f"{key}={path} cannot be read as {encoding}: {first_line(error)}; {encoding_advice(content, source)}"
        ) from None
    if content and wide != (wide_encoding_of(content) is not None):
        raise GraftError(f"{key}={path} is not {encoding}; {encoding_advice(content, source)}")
    return text


def wide_encoding_of(content: bytes) -> str | None:
    """The encoding of two or four bytes a character that a file's beginning suggests; None for another."""
    for mark, name in BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return name
    beginning = content[:1000]
    if content.count(b"\0", 0, 1000) > len(beginning) // 4:  # every other byte, of text in Latin letters
        return "utf-16-le" if beginning[1:2] == b"\0" else "utf-16-be"
    return None


def encoding_of(content: bytes) -> str:
    """The encoding that a file's bytes suggest."""
    if wide := wide_encoding_of(content):
        return wide
    for name in ("utf-8", "cp1252" if re.search(rb"[\x80-\x9f]", content) else "latin-1"):
        try:
            content.decode(name)
            return name
        except UnicodeError:
            continue
    return "latin-1"


def encoding_advice(content: bytes, source: str) -> str:
    """The key that names the encoding which a file seems to have."""
    return f"try {source}.encoding={encoding_of(content)}"


class UnclosedError(ValueError):
    """Quotes that do not pair up in the row that starts at `line`; the message says how."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def split_rows(content: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The number of the line on which it starts and the values of every row that is not blank."""
    if delimiter == "whitespace":
        yield from ((n, line.split()) for n, line in enumerate(io.StringIO(content, None), start=1) if line.strip())
        return
    csv.field_size_limit(LONGEST_FIELD)
    delimiter = "\t" if delimiter == DELIMITERS["\t"] else delimiter
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    ended = 0
    try:
        for row in reader:
            if any(value.strip() for value in row):
                yield ended + 1, row
            ended = reader.line_num
    except csv.Error as error:
        where = "a quote opens here and nothing closes it" if "end of data" in str(error) else str(error)
        raise UnclosedError(
            ended + 1,
            f"{where} (the file has {content.count(chr(10)):,} lines). Close the quote, or write it twice within a "
            "quoted value.",
        ) from None


def rows_within(row: Sequence[str], delimiter: str) -> int:
    """How many rows of the table a quoted value has taken in; 0 for texts of several lines."""
    numbers = [place for place, value in enumerate(row) if not np.isnan(number(value))]
    for place, value in enumerate(row):
        *whole, last = value.splitlines()[1:] or [""]
        if last.count(delimiter) != place or any(line.count(delimiter) != len(row) - 1 for line in whole):
            continue
        lines = [line.split(delimiter) for line in ([*whole, last] if place else whole)]
        alike = [[number(line[n]) for n in numbers if n < len(line)] for line in lines]
        if lines and all(found and not np.isnan(found).any() for found in alike):
            return len(lines)
    return 0


def default_delimiter(path: Path) -> str:
    """What separates the values of a file of that name."""
    named = path.with_suffix("") if path.suffix.lower() in PACKED_NAMES else path
    return "\t" if named.suffix.lower() in (".tsv", ".tab") else ","


def check_names(names: Sequence[str], path: Path, key: str) -> None:
    """Raise GraftError for a header that names a column twice, or not at all."""
    seen: dict[str, str] = {}
    for place, name in enumerate(names):
        known = name.replace(".", "_")  # as the modules of a backbone are named
        if not name or known in seen:
            twice = f"names {name!r} twice" if seen.get(known) == name else f"names {name!r} beside {seen.get(known)!r}"
            what = twice if name else f"has no name for column {place}"
            raise GraftError(f"{key}={path}: the header {what}. Every column needs its own name.")
        seen[known] = name


def texts(values: Sequence[str | None]) -> np.ndarray:
    """An array of texts of any length."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def without_missing(values: np.ndarray, none: Collection[str]) -> np.ndarray:
    """Texts with None in the place of words that mean no value."""
    return values if values.dtype != object else texts([None if value in none else value for value in values])


def column_name(table: Table, column: str | int, key: str, likely: str | None = None) -> str:
    """The name of a column, which may be given by its place, from 0 or from -1 backwards; messages name the `key`.

    `likely` is the column that a message suggests, the last where there is none.
    """
    names = list(table.columns)
    if isinstance(column, int) and -len(names) <= column < len(names):
        return names[column]
    if column in names:
        return column
    source, shown = key.rpartition(".")[0], ", ".join(map(printable, names))
    advice = f"one of them, such as {override(key, printable(likely or names[-1]))}" if len(names) > 1 else ""
    cells = [str(value) for value in table.columns[names[0]][:1]] if len(names) == 1 else []  # without a header
    separator = separator_in([*names, *cells])
    if not advice or separator:
        delimiter = override(f"{source}.delimiter", separator or SEPARATORS[0])
        advice += f"{', or ' if advice else ''}what separates the columns, {delimiter}"
    raise GraftError(f"{key}={column}: {table.file} has no such column. Columns: {shown or 'none'}. Name {advice}")


def separator_in(names: Sequence[str]) -> str | None:
    """What may separate the columns of a file whose names are these with another delimiter; None where nothing does."""
    joined = "".join(names)
    sign = max(SEPARATORS, key=joined.count)
    return DELIMITERS.get(sign, sign) if sign in joined else None


def to_numbers(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers `(N,)`, NaN where there is none, and a mask of what is neither missing nor a number of 32 bits."""
    if values.dtype != object:
        numbers, given = values, ~np.isnan(values)
    elif (plain := plain_numbers(values)) is not None:
        numbers, given = plain, ~np.isnan(plain)
    else:
        different = set(values)  # texts occur again and again
        numbers = mapped(values, {value: number(value) for value in different}, np.float64)
        given = mapped(values, {value: value is not None and not is_nan(value) for value in different}, np.bool_)
    wrong = given & ~(np.abs(numbers) <= LARGEST)
    return (np.where(wrong, np.nan, numbers) if wrong.any() else numbers), wrong


def mapped(values: np.ndarray, found: Mapping[Any, float], dtype: type) -> np.ndarray:
    """What was found of each of the values `(N,)`."""
    different: np.ndarray = np.array([*found.values()], dtype=dtype)
    if is_constant(different):
        return np.broadcast_to(different[:1], values.shape)
    return np.fromiter(map(found.__getitem__, values), dtype, len(values))


def small_if_constant(values: np.ndarray) -> np.ndarray:
    """The values `(N,)`, in the memory of one of them where all are the same: of words no numbers need be kept."""
    return np.broadcast_to(values[:1].copy(), values.shape) if is_constant(values) else values


def is_constant(values: np.ndarray) -> bool:
    """Whether all numbers or marks `(N,)` are the same, NaN too; most that are not differ at their ends."""
    ends = np.array_equal(values[:1], values[-1:], equal_nan=True)
    return ends and np.array_equal(values, np.broadcast_to(values[:1], values.shape), equal_nan=True)


def plain_numbers(values: np.ndarray) -> np.ndarray | None:
    """Texts that all are numbers as float64 `(N,)`; None where one is not. Wide tables spend their time here."""
    try:
        return None if "_" in "".join(values) else values.astype(np.float64)
    except (TypeError, ValueError):
        return None


def is_nan(text: str) -> bool:
    """Whether a text says itself that it is no number."""
    return text.strip().lower().lstrip("+-") == "nan"


def to_texts(values: np.ndarray) -> np.ndarray:
    """Texts `(N,)`, None where one is missing; whole numbers without a point."""
    if values.dtype == object:
        return values
    return texts([None if np.isnan(v) else str(int(v)) if float(v).is_integer() else repr(float(v)) for v in values])
