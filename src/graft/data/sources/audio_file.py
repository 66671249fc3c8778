"""Your own recordings: a table of their paths and labels, or one for each of train, val and test."""

from collections.abc import Mapping
from typing import Any

from graft.data.readers.labelled import Record
from graft.data.readers.recordings import LabelledRecordings
from graft.data.readers.table import Table, to_texts
from graft.data.readers.table_files import ListedFiles


class AudioFile(ListedFiles, LabelledRecordings):
    """A CSV or Parquet file with a row for each recording; missing splits are split off by seed.

    A source may have no labels, as beside captions.
    """

    may_lack_labels = True

    def __init__(self, file: str, label: str | int | None = "label", **settings: Any) -> None:
        """`label` is a column by name or number; null: samples have none."""
        super().__init__(file, **settings)
        self.label = label
        self.labelled = label is not None

    def list_files(self) -> dict[str, list[Record]]:
        """The rows of every file."""
        return {split: self._records(table, split) for split, table in self.tables().items()}

    def _records(self, table: Table, split: str) -> list[Record]:
        """All rows of a table, with those that cannot be used."""
        path, names = self.named_columns(table, split, [] if self.label is None else [self.label])
        paths = to_texts(table.columns[path])
        labels = to_texts(table.columns[names[0]]) if names else [""] * len(paths)
        columns = {name: to_texts(values) for name, values in table.columns.items() if name not in (path, *names)}
        rows = [
            self._record(split, *values, {name: column[index] for name, column in columns.items()})
            for index, values in enumerate(zip(table.lines.tolist(), paths, labels, strict=True))
        ]
        rows += [Record(self.files[split], line, None, "", problem) for line, problem in table.bad.items()]
        return sorted(rows, key=lambda row: row.number or 0)

    def _record(
        self, split: str, number: int, path: str | None, label: str | None, columns: Mapping[str, Any]
    ) -> Record:
        file = self.files[split]
        if label is None and self.label_kind == "multilabel":
            label = ""  # none of the labels
        if path is None or label is None:
            return Record(file, number, None, "", f"its {'path' if path is None else 'label'} is missing")
        return Record(file, number, self.located(split, path), label, columns=columns)
