"""Your own table in CSV or Parquet."""

import functools
from collections.abc import Sequence
from pathlib import Path

from graft.data.domain import (
    sha256,
)
from graft.data.readers.table import (
    Table,
    read_table,
)
from graft.data.readers.table_source import TableSource
from graft.data.sources.image_folder import file_hash

MISSING_WORDS = ("NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?")


class TableFile(TableSource):
    """A CSV or Parquet file with a row for each sample, or one for each official split."""

    def __init__(
        self,
        file: str,
        label: str | int,
        val_file: str | None = None,
        test_file: str | None = None,
        delimiter: str | None = None,
        header: bool = True,
        encoding: str = "utf-8",
        missing: Sequence[str] = MISSING_WORDS,
        **table: object,
    ) -> None:
        """`delimiter` null is what the file's name suggests, `whitespace` any number of blanks."""
        super().__init__(label, **table)
        files = {"train": file, "val": val_file, "test": test_file}
        self.files = {split: Path(name).expanduser() for split, name in files.items() if name is not None}
        self.reading = {"delimiter": delimiter, "header": header, "encoding": encoding, "missing": tuple(missing)}
        self.name = self.files["train"].stem

    def read(self) -> dict[str, Table]:
        """Every file."""
        keys = {"train": "file", "val": "val_file", "test": "test_file"}
        return {
            split: read_table(path, f"{self.key}.{keys[split]}", **self.reading) for split, path in self.files.items()
        }

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the files and of how they are read."""
        settings = {name: value for name, value in vars(self).items() if name not in ("files", "key", "fingerprint")}
        return sha256([repr(settings).encode(), *map(file_hash, self.files.values())])
