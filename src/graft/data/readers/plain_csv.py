"""CSV files of which every line is a row, read by pyarrow: columns of numbers never become texts."""

import codecs
import csv
import io
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import pyarrow
import pyarrow.csv

from graft.data.readers.numbers import LARGEST, number

SAMPLED = 200  # rows that tell which columns hold numbers with a decimal point
BLOCK = 2**22  # bytes that are read and converted at once: a table is never held as a file and as arrays
SPARE = 1.02  # columns have room for so many times the rows that the first block makes likely
QUOTE = '"'
GROWTH = 1.5  # and for so many times what they hold, where there are more


@dataclass(frozen=True)
class PlainRows:
    """The values of the first line, and the columns by place.

    A column is float64 `(N,)`, NaN where one is missing, or texts `(N,)` without blanks around them, None where one is
    missing.
    """

    first: list[str]
    columns: list[np.ndarray]
    rows: int


def read_plain(
    stream: BinaryIO,
    size: int,
    delimiter: str,
    header: bool,
    missing: Collection[str],
    places_of_words: Callable[[list[str]], Collection[int]],
) -> PlainRows | None:
    """The rows of a UTF-8 file of about `size` bytes, None where it has to be looked at row by row.

    Such are quotes and line ends within values, blank lines, rows of another length, bytes that are no text, and
    numbers that networks cannot compute with. Whole numbers stay texts, because 1, 1.0 and 01 are different categories,
    and so do the columns at `places_of_words`, which gets the first line's values.
    """
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter == QUOTE:
        return None
    if delimiter.isspace() and delimiter != "\t":
        return None
    blocks = blocks_of(stream)
    beginning = next(blocks, b"")
    if is_odd(beginning, delimiter) or beginning.startswith(codecs.BOM_UTF8):
        return None
    try:
        sample = [*csv.reader(first_lines(beginning, SAMPLED + 1), delimiter=delimiter)]
    except (UnicodeDecodeError, csv.Error):
        return None
    if len(sample) < 2:
        return None
    first, rows = sample[0], sample[1:] if header else sample
    if not any(value.strip() for value in first) or any(len(row) != len(first) for row in rows):
        return None
    words = places_of_words(first)
    numeric = {
        place
        for place, values in enumerate(zip(*rows, strict=True))
        if place not in words and have_decimals(values, missing)
    }
    if header:
        beginning = beginning[beginning.index(b"\n") + 1 :]
    expected = int(SPARE * size / len(beginning) * lines_in(beginning)) if size > BLOCK else lines_in(beginning)
    growing = GrowingColumns([np.float64 if place in numeric else object for place in range(len(first))], expected)
    if not add_rows(beginning, delimiter, missing, growing):
        return None
    for block in blocks:
        if is_odd(block, delimiter) or not add_rows(block, delimiter, missing, growing):
            return None
    pyarrow.default_memory_pool().release_unused()  # it keeps what the blocks took
    return PlainRows(first, growing.columns, growing.rows)


def blocks_of(stream: BinaryIO) -> Iterator[bytes]:
    """A file in blocks of whole lines, the first of which holds the lines that are looked at."""
    beginning = b"".join(itertools.islice(stream, SAMPLED + 1))
    block = beginning + stream.read(BLOCK) + stream.readline()
    while block:
        yield block
        block = stream.read(BLOCK)
        block += stream.readline()


def is_odd(block: bytes, delimiter: str) -> bool:
    """Whether lines hold what pyarrow may read in another way than Python does."""
    if b"\0" in block or (b"\r" in block and block.count(b"\r") != block.count(b"\r\n")):
        return True
    if b"\xef" in block and b"\xef\xbf\xbd" in block:
        return True
    return QUOTE.encode() in block and not has_plain_quotes(block, delimiter)


def has_plain_quotes(block: bytes, delimiter: str) -> bool:
    """Whether every quote begins or ends a value, and none stands within one, nor the end of a line."""
    content = np.frombuffer(b"\n%b\n" % block, dtype=np.uint8)
    quotes, ends = ((content == ord(sign)).nonzero()[0] for sign in (QUOTE, "\n"))
    if len(quotes) % 2:
        return False
    opening, closing = quotes[::2], quotes[1::2]
    begin = np.isin(content[opening - 1], [ord(delimiter), ord("\n")])
    end = np.isin(content[closing + 1], [ord(delimiter), ord("\n"), ord("\r")])
    in_one_line = np.searchsorted(ends, opening) == np.searchsorted(ends, closing)
    return bool((begin & end & in_one_line).all())


def lines_in(block: bytes) -> int:
    """How many lines there are; the last one of a file need not have an end."""
    return block.count(b"\n") + (not block.endswith(b"\n"))


def first_lines(block: bytes, lines: int) -> list[str]:
    """The first lines of a block."""
    return [line.decode().rstrip("\r\n") for line in itertools.islice(io.BytesIO(block), lines)]


@dataclass
class GrowingColumns:
    """Arrays that are filled block by block; memory that was asked for is taken when it is written to."""

    types: list[type]
    room: int
    rows: int = 0
    arrays: list[np.ndarray] = field(init=False)
    known_texts: dict[str, str] = field(default_factory=dict)  # equal texts are one object, so that they take no room

    def __post_init__(self) -> None:
        self.arrays = [np.empty(self.room, dtype=one) for one in self.types]

    @property
    def columns(self) -> list[np.ndarray]:
        """What was filled."""
        return [array[: self.rows] for array in self.arrays]

    def places_for(self, more: int) -> list[np.ndarray]:
        """Of each column the part where so many rows more are to be written."""
        begin, self.rows = self.rows, self.rows + more
        if self.rows > self.room:
            self.room = max(self.rows, int(GROWTH * self.room))
            for place, array in enumerate(self.arrays):
                self.arrays[place] = np.empty(self.room, dtype=array.dtype)
                self.arrays[place][:begin] = array[:begin]
        return [array[begin : self.rows] for array in self.arrays]


def add_rows(block: bytes, delimiter: str, missing: Collection[str], growing: GrowingColumns) -> bool:
    """Add a block's lines to the columns; False where they are no rows that pyarrow reads as Python does."""
    try:
        found = read_columns(block, delimiter, missing, growing.types)
    except pyarrow.ArrowException:
        return False
    if len(found) != lines_in(block):  # some are blank
        return False
    blank = np.ones(len(found), dtype=bool)  # rows without a value in the columns so far
    for values, rows in zip(found.columns, growing.places_for(len(found)), strict=True):
        if rows.dtype == object:
            rows[:], empty = texts_of(values, missing, growing.known_texts)
            blank &= empty
        else:
            np.concatenate([numbers_in(chunk, np.float64) for chunk in values.chunks], out=rows)
            if np.fmax.reduce(rows) > LARGEST or np.fmin.reduce(rows) < -LARGEST:
                return False
            if blank.any():
                blank &= np.isnan(rows)
    return not blank.any()


def texts_of(
    values: pyarrow.ChunkedArray, missing: Collection[str], known: dict[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Texts `(M,)`, None where one is missing, and which are empty; those that are `known` are the same objects."""
    chunks = values.unify_dictionaries().chunks
    found = [text.strip() for text in chunks[0].dictionary.to_pylist()]
    if 2 * len(found) <= len(values):  # what occurs once need not be known
        found = [known.setdefault(text, text) for text in found]
    words = np.array([None if text in missing else text for text in found], dtype=object)
    codes = np.concatenate([numbers_in(chunk.indices, np.int32) for chunk in chunks])
    return words[codes], np.array([not text for text in found], dtype=bool)[codes]


def numbers_in(values: pyarrow.Array, dtype: type) -> np.ndarray:
    """Numbers `(M,)`, NaN where one is missing. pyarrow's own way would import pandas, a quarter of a second."""
    validity, content = values.buffers()
    some = slice(values.offset, values.offset + len(values))
    numbers: np.ndarray = np.frombuffer(content, dtype=dtype)[some]
    if values.null_count:
        known = np.unpackbits(np.frombuffer(validity, dtype=np.uint8), bitorder="little")[some]
        numbers = np.where(known, numbers, np.nan)
    return numbers


def read_columns(block: bytes, delimiter: str, missing: Collection[str], types: Sequence[type]) -> pyarrow.Table:
    """A block's columns, called by their places: float64, or texts and where each of them stands."""
    text = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    columns = {str(place): text if one is object else pyarrow.float64() for place, one in enumerate(types)}
    return pyarrow.csv.read_csv(
        pyarrow.BufferReader(block),
        pyarrow.csv.ReadOptions(column_names=[*columns]),
        pyarrow.csv.ParseOptions(delimiter=delimiter, quote_char=QUOTE if QUOTE.encode() in block else False),
        pyarrow.csv.ConvertOptions(column_types=columns, null_values=[*missing], strings_can_be_null=False),
    )


def have_decimals(values: Collection[str], missing: Collection[str]) -> bool:
    """Whether texts are numbers, some of them with a decimal point, where they are not missing."""
    known = [value.strip() for value in values if value.strip() not in missing]
    return any("." in value for value in known) and not any(np.isnan(number(value)) for value in known)
