"""Your own texts: a file of them with their labels, or one for each of train, val and test."""

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from graft.config.types import Natural
from graft.data.readers.labelled import Record
from graft.data.readers.table import LONGEST_FIELD, MOSTLY, PACKED_NAMES, content_of, encoding_advice, encoding_of
from graft.data.readers.texts import LabelledTexts, not_readable, shortened, word_of
from graft.errors import GraftError, override, printable
from graft.files import user_path
from graft.packages import PREFIX, file_in_package

Line = TypeVar("Line", str, list[str])
Fields = Mapping[Any, Any]  # of a row, by the columns' names or numbers
WIDE = ("utf-16", "utf-32")  # encodings whose files are not read as others by mistake
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
        delimiter: str | None = None,
        encoding: str = "utf-8",
        **settings: Any,
    ) -> None:
        """Columns by name, or by number from 0."""
        super().__init__(label, **settings)
        self.files = {"train": file, "val": val_file, "test": test_file}
        self.text = text
        self.header = header
        self.format = format
        self.delimiter = delimiter
        self.encoding = encoding

    @property
    def title(self) -> str:
        """The file's name without its endings; its folder's where it is only called train."""
        file = self._path("train")
        name = file.name.partition(".")[0]
        return file.absolute().parent.name if name == "train" else name

    def records(self) -> dict[str, list[Record]]:
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
        return file_in_package(value, self._key_of(split)) if in_package else user_path(value)

    def _rows(self, split: str) -> list[Record]:
        """All rows of a split's file, with those that cannot be used."""
        file, key = self._path(split), self._key_of(split)
        if not file.is_file():
            what = "that is a folder" if file.is_dir() else "no such file"
            raise GraftError(f"{self.origin(split)}: {what}. Give a file of texts and labels: {key}=reviews.tsv")
        content = content_of(file, key)
        advice = encoding_advice(content, self.key)
        found = list(self._records(file, self._decoded(content, split, advice), key, advice))
        if not found:
            raise GraftError(
                f"{self.origin(split)}: the file is empty. Give one with a text and a label in each row, "
                f"{key}=reviews.tsv"
            )
        labels = self._labels_of_lines(record for _, record in found)
        rows = [self._row(file, number, record, labels, advice) for number, record in found]
        unread = sum(f"is not {self.encoding.upper()}" in row.problem for row in rows)
        if unread > MOSTLY * len(rows):
            raise GraftError(
                f"{self.origin(split)}: {unread:,} of {len(rows):,} rows are not {self.encoding.upper()}: {advice}"
            )
        if split == "train":
            self.check_split_columns([record for _, record in found if isinstance(record, Mapping)])
        return rows

    def _decoded(self, content: bytes, split: str, advice: str) -> str:
        """The file as text; what is not in its encoding becomes surrogates, so that the row can be named."""
        try:
            wide = codecs.lookup(self.encoding).name.startswith(WIDE)
        except LookupError:
            raise GraftError(
                f"{self.key}.encoding={self.encoding}: no such encoding. Usual are utf-8, latin-1, cp1252, utf-16."
            ) from None
        try:
            if wide == encoding_of(content).startswith(WIDE):
                text = content.decode(self.encoding, errors="strict" if wide else "surrogateescape")
                return text.removeprefix("\N{BYTE ORDER MARK}")
        except UnicodeError:
            pass
        raise GraftError(f"{self.origin(split)}: the file is not {self.encoding.upper()}; {advice}")

    def _records(self, file: Path, text: str, key: str, advice: str) -> Iterator[tuple[int, Fields | str]]:
        """(line, fields) of each record: a mapping from column to value, or why it is none."""
        kind = self._format(file, key)
        # Carriage returns alone are part of a text, unless nothing else ends a line.
        stream = io.StringIO(text, newline="\n" if "\n" in text else "\r")
        if kind == "jsonl":
            texts = ((number, line.strip()) for number, line in enumerate(stream, start=1))
            yield from ((number, json_record(line)) for number, line in without_blank_end(texts))
            return
        names: Sequence[str | int] | None = None
        lines = self._csv_lines(file, stream) if kind == "csv" else tsv_lines(stream, self.delimiter or "\t")
        for number, values in without_blank_end(lines):
            if not values:
                yield number, "the line is empty"
            elif names is None and self.header:
                names = values
                self._require_columns(file, number, values, advice)
            else:
                names = names or range(len(values))
                unequal = len(values) != len(names)
                yield number, other_length(values, names) if unequal else dict(zip(names, values, strict=True))

    def _csv_lines(self, file: Path, stream: io.StringIO) -> Iterator[tuple[int, list[str]]]:
        """(line on which it starts, values) of each record, which may go over several lines in quotes."""
        csv.field_size_limit(LONGEST_FIELD)
        ended = 0
        try:
            reader = csv.reader(stream, delimiter=self.delimiter or ",", strict=True)
            for values in reader:
                yield ended + 1, values
                ended = reader.line_num
        except TypeError:
            raise GraftError(
                f"{self.key}.delimiter={self.delimiter}: columns are separated by one character, such as "
                f"{override(f'{self.key}.delimiter', ';')}"
            ) from None
        except csv.Error as error:
            what = "a quote opens here and nothing closes it" if "end of data" in str(error) else str(error)
            raise GraftError(
                f"{file}, row {ended + 1}: this is no CSV ({what}). Put a text that has commas or quotes into quotes, "
                "with its own quotes written twice."
            ) from error

    def _format(self, file: Path, key: str) -> str:
        if self.format != "auto":
            return self.format
        ending = (file.with_suffix("") if file.suffix.lower() in PACKED_NAMES else file).suffix.lower()
        if ending not in FORMATS:
            raise GraftError(
                f"{key}={file}: what the file holds does not show in its name. Known endings: {', '.join(FORMATS)}, "
                f"also with {', '.join(PACKED_NAMES)}; or say it: {self.key}.format=tsv, csv or jsonl"
            )
        return FORMATS[ending]

    def _require_columns(self, file: Path, row: int, names: Sequence[str], advice: str) -> None:
        where = f"{file}, row {row}"
        if problem := not_readable(" ".join(names), self.encoding, advice):
            raise GraftError(f"{self.origin('train')}: {where} {problem}.")
        if twice := next((name for name, number in Counter(names).items() if number > 1), None):
            raise GraftError(f"{self.origin('train')}: {where}, has two columns {twice!r}. Give each its own name.")
        for key, column in {"text": self.text, "label": self.label}.items():
            if column not in names and not has_place(names, column):
                other = next((one for one in ";\t|," if len(names) == 1 and one in names[0]), None)
                advice = (
                    f"; or name what separates columns: {override(f'{self.key}.delimiter', other)}" if other else ""
                )
                raise GraftError(
                    f"{self.key}.{key}={column}: {where}, has no such column; it has "
                    f"{', '.join(map(printable, names))}. Name one of them, or say that the file has no header: "
                    f"{self.key}.header=false {self.key}.text=0 {self.key}.label=1{advice}"
                )

    def _labels_of_lines(self, records: Iterable[Fields | str]) -> set[str]:
        """Labels of the records that do not go over several lines."""
        plain = (record for record in records if not isinstance(record, str) and not several_lines(record))
        return {word_of(column_of(record, self.label)) for record in plain} - {""}

    def _row(self, file: Path, number: int, record: Fields | str, labels: Collection[str], advice: str) -> Record:
        if isinstance(record, str):
            return Record(file, number, "", "", record)
        for key, column in {"text": self.text, "label": self.label}.items():
            if column not in record and not has_place([*record], column):
                return Record(file, number, "", "", f"it has no column {column} ({self.key}.{key})")
        if several_lines(record) and (rows := self._rows_within(record, labels)):
            return Record(file, number, "", "", f"a quote opens here and closes {rows} rows later")
        others = {str(name): value for name, value in record.items() if name not in (self.text, self.label)}
        columns = others | {name: column_of(record, name) for name in self.split_columns}
        return self.record(file, number, column_of(record, self.text), column_of(record, self.label), columns, advice)

    def _rows_within(self, record: Fields, labels: Collection[str]) -> int:
        """How many rows of the file a value in quotes has taken in; 0 for a text of several lines.

        Each of its lines but the last ends a row, with one of the file's labels in the labels' column.
        """
        names = [*record]
        label = names.index(self.label) if self.label in record else int(self.label) % len(names)
        for place, value in enumerate(record.values()):
            lines = str(value).splitlines()[:-1]
            parsed = [next(csv.reader([line], delimiter=self.delimiter or ","), []) for line in lines]
            rows = [[""] * (0 if number else place) + values for number, values in enumerate(parsed)]
            if rows and all(len(row) == len(names) and row[label].strip() in labels for row in rows):
                return len(rows)
        return 0


# Reading


def tsv_lines(stream: io.StringIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line, values), none of an empty line; quotes mean nothing in such files."""
    for number, line in enumerate(stream, start=1):
        yield number, line.rstrip("\r\n").split(delimiter) if line.strip() else []


def without_blank_end(lines: Iterator[tuple[int, Line]]) -> Iterator[tuple[int, Line]]:
    """(number, line) of all but the empty ones at the end, which many files have."""
    blank: list[tuple[int, Line]] = []
    for number, line in lines:
        if line:
            yield from blank
            blank.clear()
            yield number, line
        else:
            blank.append((number, line))


def json_record(line: str) -> Fields | str:
    """The object of a line, or why it is none."""
    try:
        record = json.loads(line)
    except RecursionError:
        return "it is nested too deeply"
    except ValueError:
        record = None
    return record if isinstance(record, dict) else f"it is no JSON object: {shortened(line)}"


def other_length(values: Sequence[str], names: Sequence[str | int]) -> str:
    """Why a record with more or fewer values than there are columns cannot be used."""
    return f"it has {len(values)} values where there are {len(names)} columns"


def has_place(fields: Sequence[Any], column: str | int) -> bool:
    """Whether a column is a number that counts to one of the fields, from their end where it is negative."""
    return isinstance(column, int) and -len(fields) <= column < len(fields)


def column_of(record: Fields, column: str | int) -> Any:
    """A record's value in a column, by its name or place; None where there is none."""
    if column in record:
        return record[column]
    fields = [*record.values()]
    place = int(column) if str(column).lstrip("-").isdigit() else column
    return fields[place] if isinstance(place, int) and has_place(fields, place) else None


def several_lines(record: Fields) -> bool:
    """Whether a value of a record goes over several lines."""
    return any(isinstance(value, str) and "\n" in value for value in record.values())
