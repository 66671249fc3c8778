"""Your own texts: a file of them with their labels, or one for each of train, val and test."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TextIO, TypeVar

from graft.config.types import FractionBelowOne, Natural
from graft.data.domain import OnBadSample
from graft.data.readers.labelled import Record
from graft.data.readers.texts import LabelledTexts, labelled_record, not_utf8
from graft.errors import GraftError, first_line
from graft.packages import PREFIX, file_in_package

Line = TypeVar("Line", str, list[str])
LONGEST_FIELD = 2**30  # characters of a CSV field; the library takes 2**17, and a text may be longer
OPENERS = {".bz2": bz2.open, ".gz": gzip.open, ".xz": lzma.open}
FORMATS = {".tsv": "tsv", ".txt": "tsv", ".tab": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


class TextFile(LabelledTexts):
    """Texts and labels in TSV, CSV or JSON lines, also compressed; missing splits are split off by seed."""

    def __init__(
        self,
        file: str,
        val_file: str | None = None,
        test_file: str | None = None,
        text: str | Natural = "text",
        label: str | Natural = "label",
        header: bool = True,
        format: Literal["auto", "tsv", "csv", "jsonl"] = "auto",
        classes: Sequence[str | int] | None = None,
        val_fraction: FractionBelowOne = 0.15,
        test_fraction: FractionBelowOne = 0.15,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        """Columns by name, or by number from 0; `classes` in their order, a row of another one is bad."""
        super().__init__(label, classes, val_fraction, test_fraction, on_bad_sample)
        self.files = {"train": file, "val": val_file, "test": test_file}
        self.text = text
        self.header = header
        self.format = format

    @property
    def title(self) -> str:
        """The file's name without its endings; its folder's where it is only called train."""
        file = self._path("train")
        name = file.name.partition(".")[0]
        return file.absolute().parent.name if name == "train" else name

    def read(self) -> dict[str, list[Record]]:
        """Rows of every split that has a file."""
        return {name: self._rows(name) for name, file in self.files.items() if file is not None}

    def origin(self, split: str) -> str:
        """Key and name of a split's file."""
        return f"{self._key_of(split)}={self.files[split]}"

    def _key_of(self, split: str) -> str:
        return f"{self.key}.file" if split == "train" else f"{self.key}.{split}_file"

    def _path(self, split: str) -> Path:
        value = str(self.files[split])
        in_package = value.startswith(PREFIX)
        return file_in_package(value, self._key_of(split)) if in_package else Path(value).expanduser()

    def _rows(self, split: str) -> list[Record]:
        """All rows of a split's file, with those that cannot be used."""
        file, key = self._path(split), self._key_of(split)
        if not file.is_file():
            what = "that is a folder" if file.is_dir() else "no such file"
            raise GraftError(f"{self.origin(split)}: {what}. Give a file of texts and labels: {key}=reviews.tsv")
        try:
            with opened(file) as stream:
                rows = [self._row(file, number, record) for number, record in self._records(file, stream, key)]
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            raise GraftError(
                f"{self.origin(split)}: it cannot be read ({first_line(error)}). Give a whole file: {key}=reviews.tsv"
            ) from error
        if not rows:
            raise GraftError(
                f"{self.origin(split)}: the file is empty. Give one with a text and a label in each row, "
                f"{key}=reviews.tsv"
            )
        return rows

    def _records(self, file: Path, stream: TextIO, key: str) -> Iterator[tuple[int, Mapping[Any, Any] | str]]:
        """(line, fields) of each record: a mapping from column to value, or in words why it is none."""
        kind = self._format(file, key)
        if kind == "jsonl":
            lines = ((number, line.strip()) for number, line in enumerate(stream, start=1))
            yield from ((number, json_record(line)) for number, line in without_blank_end(lines))
            return
        names: Sequence[str | int] | None = None
        for number, values in without_blank_end(csv_lines(file, stream) if kind == "csv" else tsv_lines(stream)):
            if not values:
                yield number, "the line is empty"
            elif names is None and self.header:
                names = values
                self._require_columns(file, number, values)
            else:
                names = names or range(len(values))
                longer = len(values) > len(names)
                yield number, too_many(values, names) if longer else dict(zip(names, values, strict=False))

    def _format(self, file: Path, key: str) -> str:
        if self.format != "auto":
            return self.format
        ending = file.with_suffix("").suffix if file.suffix in OPENERS else file.suffix
        if ending not in FORMATS:
            raise GraftError(
                f"{key}={file}: what the file holds does not show in its name. Known endings: {', '.join(FORMATS)}, "
                f"also with {', '.join(OPENERS)}; or say it: {self.key}.format=tsv, csv or jsonl"
            )
        return FORMATS[ending]

    def _require_columns(self, file: Path, row: int, names: Sequence[str]) -> None:
        if problem := not_utf8(" ".join(names)):
            raise GraftError(f"{self.origin('train')}: {file}, row {row} {problem}.")
        for key, column in {"text": self.text, "label": self.label}.items():
            if column not in names and not has_place(names, column):
                raise GraftError(
                    f"{self.key}.{key}={column}: {file}, row {row}, has no such column; it has {', '.join(names)}. "
                    f"Name one of them, or say that the file has no header: {self.key}.header=false "
                    f"{self.key}.text=0 {self.key}.label=1"
                )

    def _row(self, file: Path, number: int, record: Mapping[Any, Any] | str) -> Record:
        if isinstance(record, str):
            return Record(file, number, "", "", record)
        fields, values = [*record.values()], []
        for key, column in {"text": self.text, "label": self.label}.items():
            if column not in record and not has_place(fields, column):
                return Record(file, number, "", "", f"it has no column {column} ({self.key}.{key})")
            values.append(record[column] if column in record else fields[column])
        return labelled_record(file, number, *values)


# Reading


def opened(file: Path) -> TextIO:
    """The file as text, decompressed; what is not UTF-8 becomes surrogates, so that the row can be named."""
    binary = OPENERS.get(file.suffix, open)(file, "rb")
    return io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="\n")


def tsv_lines(stream: TextIO) -> Iterator[tuple[int, list[str]]]:
    """(line, values), none of an empty line; quotes mean nothing in such files."""
    for number, line in enumerate(stream, start=1):
        yield number, line.rstrip("\r\n").split("\t") if line.strip() else []


def csv_lines(file: Path, stream: TextIO) -> Iterator[tuple[int, list[str]]]:
    """(line on which it ends, values) of each record, which may go over several lines in quotes."""
    csv.field_size_limit(LONGEST_FIELD)
    reader, ended = csv.reader(stream, strict=True), 0
    try:
        for values in reader:
            ended = reader.line_num
            yield ended, values
    except csv.Error as error:
        raise GraftError(
            f"{file}, row {ended + 1}: this is no CSV ({error}). Put a text that has commas or quotes into quotes, "
            "with its own quotes written twice."
        ) from error


def without_blank_end(lines: Iterator[tuple[int, Line]]) -> Iterator[tuple[int, Line]]:
    """(number, line) of all but the empty ones at the end, which many files have."""
    blank = []
    for number, line in lines:
        if line:
            yield from blank
            blank.clear()
            yield number, line
        else:
            blank.append((number, line))


def json_record(line: str) -> Mapping[str, Any] | str:
    """The object of a line, or in words why it is none."""
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    return record if isinstance(record, dict) else f"it is no JSON object: {line[:40]!r}"


def too_many(values: Sequence[str], names: Sequence[str | int]) -> str:
    """Why a record with more values than there are columns cannot be used."""
    return f"it has {len(values)} values where there are {len(names)} columns"


def has_place(fields: Sequence[Any], column: str | int) -> bool:
    """Whether a column is a number that counts to one of the fields, from their end where it is negative."""
    return isinstance(column, int) and -len(fields) <= column < len(fields)
