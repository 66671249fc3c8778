"""Your own table in CSV or Parquet."""

from collections.abc import Sequence
from typing import Any

from graft.data.readers.table_files import TableFiles
from graft.data.readers.table_source import TableSource

MISSING_WORDS = ("NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?")


class TableFile(TableFiles, TableSource):
    """A CSV or Parquet file with a row for each sample, or one for each official split."""

    def __init__(
        self,
        file: str,
        label: str | int | Sequence[str | int],
        missing: Sequence[str] = MISSING_WORDS,
        **settings: Any,
    ) -> None:
        super().__init__(file, label=label, missing=missing, **settings)

    @property
    def title(self) -> str:
        """The file's name."""
        return self.files["train"].stem
