"""CSV files of which every line is a row, read by pyarrow: columns of numbers never become texts."""

import io
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow
import pyarrow.csv

from graft.data.readers.numbers import LARGEST, number

SAMPLED = 200  # rows that tell which columns hold numbers with a decimal point


@dataclass(frozen=True)
class PlainRows:
    """The values of the first line, and the columns by place: float64 `(N,)`, NaN where missing, or texts `(N,)`."""

    first: list[str]
    columns: list[np.ndarray]
    rows: int


def read_plain(
    content: bytes,
    delimiter: str,
    header: bool,
    missing: Collection[str],
    places_of_words: Callable[[list[str]], Collection[int]],
) -> PlainRows | None:
    """The rows of a UTF-8 file, None where it has to be looked at row by row.

    Such are quotes, blank lines, rows of another length, bytes that are no text, and numbers that networks cannot
    compute with. Whole numbers stay texts, because 1, 1.0 and 01 are different categories, and so do the columns at
    `places_of_words`, which gets the first line's values.
    """
    if len(delimiter) != 1 or not delimiter.isascii() or (delimiter.isspace() and delimiter != "\t"):
        return None
    if b'"' in content or b"\0" in content or (b"\r" in content and content.count(b"\r") != content.count(b"\r\n")):
        return None
    if b"\xef" in content and (b"\xef\xbf\xbd" in content or content.startswith(b"\xef\xbb\xbf")):
        return None
    try:
        sample = [line.split(delimiter) for line in beginning(content, SAMPLED + 1)]
    except UnicodeDecodeError:
        return None
    if len(sample) < 2:
        return None
    first, rows = sample[0], sample[1:] if header else sample
    if not any(value.strip() for value in first) or any(len(row) != len(first) for row in rows):
        return None
    words = places_of_words(first)
    numeric = [
        place
        for place, values in enumerate(zip(*rows, strict=True))
        if place not in words and have_decimals(values, missing)
    ]
    try:
        found = read_columns(content, delimiter, header, missing, len(first), numeric)
    except pyarrow.ArrowException:
        return None
    lines = content.count(b"\n") + (not content.endswith(b"\n")) - header
    if len(found) != lines:  # some are blank
        return None
    columns: list[Any] = found.columns
    del found  # so that each column's memory is given back once it is converted
    for place, values in enumerate(columns):
        columns[place] = None
        columns[place] = values.to_numpy()
        del values
    pyarrow.default_memory_pool().release_unused()  # it keeps what the table took
    if any((np.abs(columns[place]) > LARGEST).any() for place in numeric) or has_blank_rows(columns):
        return None
    return PlainRows(first, columns, lines)


def read_columns(
    content: bytes, delimiter: str, header: bool, missing: Collection[str], number_of_columns: int, numeric: list[int]
) -> pyarrow.Table:
    """The file's columns, called by their places: those at `numeric` as float64, the others as texts."""
    names = [str(place) for place in range(number_of_columns)]
    types = {name: pyarrow.float64() if place in numeric else pyarrow.string() for place, name in enumerate(names)}
    return pyarrow.csv.read_csv(
        pyarrow.BufferReader(content),
        pyarrow.csv.ReadOptions(column_names=names, skip_rows=int(header)),
        pyarrow.csv.ParseOptions(delimiter=delimiter, quote_char=False),
        pyarrow.csv.ConvertOptions(column_types=types, null_values=[*missing], strings_can_be_null=False),
    )


def beginning(content: bytes, lines: int) -> list[str]:
    """The first lines of a file."""
    stream = io.BytesIO(content)
    return [line.decode().rstrip("\r\n") for line, _ in zip(stream, range(lines), strict=False)]


def have_decimals(values: Collection[str], missing: Collection[str]) -> bool:
    """Whether texts are numbers, some of them with a decimal point, where they are not missing."""
    known = [value.strip() for value in values if value.strip() not in missing]
    return any("." in value for value in known) and not any(np.isnan(number(value)) for value in known)


def has_blank_rows(columns: list[np.ndarray]) -> bool:
    """Whether some row has no value at all."""
    blank = np.ones(len(columns[0]), dtype=bool)
    for values in columns:
        numbers = values.dtype != object
        blank &= np.isnan(values) if numbers else np.array([not value.strip() for value in values], dtype=bool)
        if not blank.any():
            return False
    return True
