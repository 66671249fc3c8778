"""A table, or one for each official split: the keys that name them, and how they are read. Stands beside a Domain."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graft.data.readers.table import Table, column_name, read_table
from graft.errors import GraftError
from graft.files import user_path
from graft.packages import PREFIX, file_in_package

KEYS = {"train": "file", "val": "val_file", "test": "test_file"}
MISSING = ("nan", "NaN", "NA")  # words of a list that are no label, beside an empty field


class TableFiles:
    """CSV or Parquet files with a row for each sample."""

    key: str

    def __init__(
        self,
        file: str,
        val_file: str | None = None,
        test_file: str | None = None,
        delimiter: str | None = None,
        header: bool = True,
        encoding: str = "utf-8",
        missing: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        """`delimiter` null is what the file's name suggests, `whitespace` any number of blanks."""
        super().__init__(**settings)
        files = {"train": file, "val": val_file, "test": test_file}
        self.named_files = {split: name for split, name in files.items() if name is not None}
        self.options: dict[str, Any] = {
            "delimiter": delimiter,
            "header": header,
            "encoding": encoding,
            "missing": tuple(missing),
        }

    @functools.cached_property
    def files(self) -> dict[str, Path]:
        """The file of each split; `pip:<package>/...` is one inside an installed package."""
        return {
            split: file_in_package(name, f"{self.key}.{KEYS[split]}") if name.startswith(PREFIX) else user_path(name)
            for split, name in self.named_files.items()
        }

    def origin(self, split: str) -> str:
        """Key and name of a split's file."""
        return f"{self.key}.{KEYS[split]}={self.files.get(split, self.files['train'])}"

    @property
    def words(self) -> Sequence[str | int] | None:
        """Columns by name or place that have to be read as texts even if they hold numbers; None: all."""
        return None

    def tables(self) -> dict[str, Table]:
        """Every file."""
        return {
            split: read_table(path, f"{self.key}.{KEYS[split]}", **self.options, words=self.words)
            for split, path in self.files.items()
        }


class ListedFiles(TableFiles):
    """Tables of which each row names a file by its path, and its label."""

    noun: str
    unit = "rows"
    label: Any

    def __init__(
        self,
        file: str,
        val_file: str | None = None,
        test_file: str | None = None,
        folder: str | None = None,
        path: str | int = "path",
        delimiter: str | None = None,
        header: bool = True,
        encoding: str = "utf-8",
        **settings: Any,
    ) -> None:
        """Columns by name or number; paths are below `folder`, null is that of the file they stand in."""
        super().__init__(file, val_file, test_file, delimiter, header, encoding, missing=MISSING, **settings)
        self.folder = None if folder is None else user_path(folder)
        self.path = path

    @property
    def title(self) -> str:
        """The file's name; its folder's where it is only called train."""
        file = self.files["train"].absolute()
        return file.parent.name if file.stem == "train" else file.stem

    @property
    def advice(self) -> str:
        """The key of the labels' column."""
        return f"{self.key}.label={self.label}: name another column."

    def tables(self) -> dict[str, Table]:
        """Every file. Raises GraftError for a folder that is not there."""
        if self.folder is not None and not self.folder.is_dir():
            raise GraftError(f"{self.key}.folder={self.folder}: no such folder. Paths of {self.noun} are below it.")
        return super().tables()

    def named_columns(self, table: Table, split: str, labels: Sequence[str | int]) -> tuple[str, list[str]]:
        """Names of the columns of the paths and of the labels; GraftError where the table of a split lacks one."""
        names = list(table.columns)
        if self.options["header"] and (files := [name for name in names if self.names_file(split, name)]):
            place = names.index(files[0])
            label = next((i for i in reversed(range(len(names))) if names[i] not in files), 1)
            raise GraftError(
                f"{self.origin(split)}: its first row names a file, {files[0]}, and no columns. Say that it has no "
                f"header: {self.key}.header=false {self.key}.path={place} {self.key}.label={label}"
            )
        # A column of paths, or else the last that is not known as one of labels.
        with_files = (name for name in names if len(table) and self.names_file(split, table.columns[name][0]))
        likely = next(with_files, None) or next((name for name in reversed(names) if name not in labels), None)
        path = column_name(table, self.path, f"{self.key}.path", likely)
        likely = next((name for name in reversed(names) if name != path), None)
        return path, [column_name(table, column, f"{self.key}.label", likely) for column in labels]

    def names_file(self, split: str, path: Any) -> bool:
        """Whether a value of a split's table is the path of a file."""
        return isinstance(path, str) and os.path.isfile(self.located(split, path))

    def located(self, split: str, path: str) -> Path:
        """The file that a row of a split's table names."""
        return (self.folder or self.files[split].parent) / user_path(path)
