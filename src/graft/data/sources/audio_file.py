"""Your own recordings: a table of their paths and labels, or one for each of train, val and test."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graft.data.readers.labelled import Record
from graft.data.readers.recordings import LabelledRecordings
from graft.data.readers.table import Table, column_name, read_table, to_texts
from graft.errors import GraftError, first_line

MISSING = ("nan", "NaN", "NA")  # words that are no label, beside an empty field
KEYS = {"train": "file", "val": "val_file", "test": "test_file"}


class AudioFile(LabelledRecordings):
    """A CSV or Parquet file with a row for each recording; missing splits are split off by seed."""

    unit = "rows"

    def __init__(
        self,
        file: str,
        val_file: str | None = None,
        test_file: str | None = None,
        folder: str | None = None,
        path: str | int = "path",
        label: str | int = "label",
        delimiter: str | None = None,
        header: bool = True,
        encoding: str = "utf-8",
        **settings: Any,
    ) -> None:
        """Columns by name or place; paths are below `folder`, null is that of the file they stand in."""
        super().__init__(**settings)
        files = {"train": file, "val": val_file, "test": test_file}
        self.files = {split: Path(name).expanduser() for split, name in files.items() if name is not None}
        self.folder = None if folder is None else Path(folder).expanduser()
        self.columns = {"path": path, "label": label}
        self.reading: dict[str, Any] = {
            "delimiter": delimiter,
            "header": header,
            "encoding": encoding,
            "missing": MISSING,
        }

    @property
    def title(self) -> str:
        """The file's name; its folder's where it is only called train."""
        file = self.files["train"].absolute()
        return file.parent.name if file.stem == "train" else file.stem

    @property
    def advice(self) -> str:
        """The key of the labels' column."""
        return f"{self.key}.label={self.columns['label']}: name another column."

    def origin(self, split: str) -> str:
        """Key and name of a split's file."""
        return f"{self.key}.{KEYS[split]}={self.files[split]}"

    def list_files(self) -> dict[str, list[Record]]:
        """The rows of every file."""
        if self.folder is not None and not self.folder.is_dir():
            raise GraftError(f"{self.key}.folder={self.folder}: no such folder. Paths of recordings are below it.")
        tables = {
            split: read_table(file, f"{self.key}.{KEYS[split]}", **self.reading) for split, file in self.files.items()
        }
        return {split: self._records(table, self.files[split]) for split, table in tables.items()}

    def _records(self, table: Table, file: Path) -> list[Record]:
        """All rows of a table, with those that cannot be used."""
        names = [column_name(table, column, f"{self.key}.{key}") for key, column in self.columns.items()]
        paths, labels = (to_texts(table.columns[name]) for name in names)
        columns = {name: to_texts(values) for name, values in table.columns.items() if name not in names}
        rows = [
            self._record(file, *values, {name: column[index] for name, column in columns.items()})
            for index, values in enumerate(zip(table.lines.tolist(), paths, labels, strict=True))
        ]
        rows += [Record(file, line, None, "", problem) for line, problem in table.bad.items()]
        return sorted(rows, key=lambda row: row.number or 0)

    def _record(
        self, file: Path, number: int, path: str | None, label: str | None, columns: Mapping[str, Any]
    ) -> Record:
        if label is None and self.label_kind == "multilabel":
            label = ""  # none of the labels
        if path is None or label is None:
            return Record(file, number, None, "", f"its {'path' if path is None else 'label'} is missing")
        found = (self.folder or file.parent) / Path(path).expanduser()
        return Record(file, number, found, label, file_problem(found), columns)


def file_problem(path: Path) -> str:
    """Why a path cannot be opened; empty where it can."""
    try:
        if path.is_file():
            return ""
        return f"{path} is a folder" if path.is_dir() else f"there is no file {path}"
    except (OSError, ValueError) as error:  # a name that no file system takes
        return f"{str(path)[:100]!r} is no path ({first_line(error)})"
