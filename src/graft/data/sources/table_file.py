"""Your own table in CSV or Parquet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graft.data.readers.table import Table, read_table
from graft.data.readers.table_source import TableSource

KEYS = {"train": "file", "val": "val_file", "test": "test_file"}
MISSING_WORDS = ("NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?")


class TableFile(TableSource):
    """A CSV or Parquet file with a row for each sample, or one for each official split."""

    def __init__(
        self,
        file: str,
        label: str | int | Sequence[str | int],
        val_file: str | None = None,
        test_file: str | None = None,
        delimiter: str | None = None,
        header: bool = True,
        encoding: str = "utf-8",
        missing: Sequence[str] = MISSING_WORDS,
        **table: Any,
    ) -> None:
        """`delimiter` null is what the file's name suggests, `whitespace` any number of blanks."""
        super().__init__(label, **table)
        files = {"train": file, "val": val_file, "test": test_file}
        self.files = {split: Path(name).expanduser() for split, name in files.items() if name is not None}
        self.reading: dict[str, Any] = {
            "delimiter": delimiter,
            "header": header,
            "encoding": encoding,
            "missing": tuple(missing),
        }

    @property
    def title(self) -> str:
        """The file's name."""
        return self.files["train"].stem

    def origin(self, split: str) -> str:
        """Key and name of a split's file."""
        return f"{self.key}.{KEYS.get(split, 'file')}={self.files.get(split, self.files['train'])}"

    def tables(self) -> dict[str, Table]:
        """Every file."""
        return {
            split: read_table(path, f"{self.key}.{KEYS[split]}", **self.reading) for split, path in self.files.items()
        }
