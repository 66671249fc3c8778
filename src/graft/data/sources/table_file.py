"""Your own table in CSV or Parquet."""

from collections.abc import Sequence
from typing import Any

from graft.data.readers.table_files import TableFiles
from graft.data.readers.table_source import TableSource
from graft.inputs.columns import CATEGORICAL

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
    def words(self) -> list[str | int] | None:
        """Labels, categories, and what splits or is left out.

        All where there are several files, in which a column that is one of numbers in train may be one of texts.
        """
        if len(self.files) > 1 or self.decimal == ",":
            return None
        labels = [self.label] if isinstance(self.label, str | int) else self.label
        by = [column for key in ("group", "time") if (column := self.split.get(key))]
        return [*labels, *self._of_kind(CATEGORICAL), *self.ignore, *by]

    @property
    def title(self) -> str:
        """The file's name."""
        return self.files["train"].stem
