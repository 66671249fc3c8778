"""Your own texts: a file of them with their labels, or one for each of train, val and test."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from graft.data.labelled import Row
from graft.data.texts import LabelledTexts, labelled_row
from graft.errors import GraftError
from graft.packages import PREFIX, file_in_package

OPENERS = {".bz2": bz2.open, ".gz": gzip.open, ".xz": lzma.open}
FORMATS = {".tsv": "tsv", ".txt": "tsv", ".tab": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


class TextFile(LabelledTexts):
    """Texts and labels in TSV, CSV or JSON lines, also compressed; missing parts are split off by seed."""

    def __init__(
        self,
        file: str,
        val_file: str | None = None,
        test_file: str | None = None,
        text: str | int = "text",
        label: str | int = "label",
        header: bool = True,
        format: str = "auto",
        classes: Sequence[str | int] | None = None,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        on_bad_sample: str = "error",
    ) -> None:
        """Columns by name, or by number from 0; `classes` in their order, rows of others are left out."""
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

    def read(self) -> dict[str, list[Row]]:
        """Rows of every part that has a file."""
        return {name: self._rows(name) for name, file in self.files.items() if file is not None}

    def origin(self, part: str) -> str:
        """Key and name of a part's file."""
        return f"{self._key_of(part)}={self.files[part]}"

    def _key_of(self, part: str) -> str:
        return f"{self.key}.file" if part == "train" else f"{self.key}.{part}_file"

    def _path(self, part: str) -> Path:
        value = str(self.files[part])
        in_package = value.startswith(PREFIX)
        return file_in_package(value, self._key_of(part)) if in_package else Path(value).expanduser()

    def _rows(self, part: str) -> list[Row]:
        """All rows of a part's file, with those that cannot be used."""
        file, key = self._path(part), self._key_of(part)
        if not file.is_file():
            raise GraftError(f"{self.origin(part)}: no such file. Give a file of texts and labels: {key}=reviews.tsv")
        with opened(file) as stream:
            rows = [self._row(file, number, record) for number, record in self._records(file, stream, key)]
        if not rows:
            raise GraftError(f"{self.origin(part)}: the file is empty.")
        return rows

    def _records(self, file: Path, stream: TextIO, key: str) -> Iterator[tuple[int, Any]]:
        """(line, fields) of each record: a mapping from column to value, or the line itself where it is no record."""
        kind = self._format(file, key)
        if kind == "jsonl":
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, json_record(line)
            return
        lines: Iterator[tuple[int, list[str]]] = csv_lines(file, stream) if kind == "csv" else tsv_lines(stream)
        names: Sequence[str | int] | None = None
        for number, values in lines:
            if self.header and names is None:
                names = values
                self._require_columns(file, names)
                continue
            yield number, dict(zip(names or range(len(values)), values, strict=False))

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

    def _require_columns(self, file: Path, names: Sequence[str]) -> None:
        for key, column in {"text": self.text, "label": self.label}.items():
            if isinstance(column, int) and column < len(names):
                continue
            if column not in names:
                raise GraftError(
                    f"{self.key}.{key}={column}: {file}, row 1, has no such column; it has {', '.join(names)}. "
                    f"Name one of them, or say that the file has no header: {self.key}.header=false "
                    f"{self.key}.text=0 {self.key}.label=1"
                )

    def _row(self, file: Path, number: int, record: Any) -> Row:
        if not isinstance(record, Mapping):
            return Row(file, number, "", "", f"it is no JSON object: {record[:40]!r}")
        fields = [*record.values()] if self.header else record
        values = []
        for key, column in {"text": self.text, "label": self.label}.items():
            named = column in record
            if not named and not (isinstance(column, int) and column < len(fields)):
                return Row(file, number, "", "", f"it has no column {column} ({self.key}.{key})")
            values.append(record[column] if named else fields[column])
        return labelled_row(file, number, *values)


# Reading


def opened(file: Path) -> TextIO:
    """The file as text, decompressed; what is not UTF-8 becomes surrogates, so that the row can be named."""
    binary = OPENERS.get(file.suffix, open)(file, "rb")
    return io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="\n")


def tsv_lines(stream: TextIO) -> Iterator[tuple[int, list[str]]]:
    """(line, values); quotes mean nothing in such files."""
    for number, line in enumerate(stream, start=1):
        if line.strip():
            yield number, line.rstrip("\r\n").split("\t")


def csv_lines(file: Path, stream: TextIO) -> Iterator[tuple[int, list[str]]]:
    """(line on which it ends, values) of each record, which may go over several lines in quotes."""
    reader = csv.reader(stream)
    try:
        for values in reader:
            if values:
                yield reader.line_num, values
    except csv.Error as error:
        raise GraftError(f"{file}, row {reader.line_num + 1}: this is no CSV ({error}). Correct the file.") from error


def json_record(line: str) -> Any:
    """The object of a line, or the line itself where it holds none."""
    try:
        record = json.loads(line)
    except ValueError:
        return line
    return record if isinstance(record, dict) else line
