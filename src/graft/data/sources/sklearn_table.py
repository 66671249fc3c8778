"""The tables that come with scikit-learn."""

from typing import Any, Literal

import numpy as np

from graft.data.readers.table import (
    Table,
    texts,
)
from graft.data.readers.table_source import TABLES, TableSource
from graft.errors import GraftError

OF_NUMBERS = ("diabetes",)  # tables whose label is no class
ROWS = {"all": slice(None), "even": slice(1, None, 2), "odd": slice(None, None, 2)}  # counted from 1


class SklearnTable(TableSource):
    """A table that comes with scikit-learn: breast_cancer, wine (classes) or diabetes (numbers)."""

    title = ""  # the table's name

    def __init__(self, name: str, rows: Literal["all", "even", "odd"] = "all", **table: Any) -> None:
        """`rows` are all, or every second one, the even or the odd ones: two tables of different rows."""
        super().__init__("target", **table)
        self.name = self.title = name
        self.rows = ROWS[rows]

    def tables(self) -> dict[str, Table]:
        """The rows, with the names of the classes in the label's place."""
        from sklearn import datasets

        if self.name not in TABLES:
            raise GraftError(f"{self.key}.name={self.name}: scikit-learn's tables are {', '.join(TABLES)}.")
        if self.name in OF_NUMBERS and self.label_kind != "numbers":
            raise GraftError(
                f"{self.key}.name={self.name}: its label is a number, not a class: task=regression "
                f"{self.key}.label_kind=numbers"
            )
        options = {"scaled": False} if self.name == "diabetes" else {}
        found = getattr(datasets, f"load_{self.name}")(**options)
        columns = {name: found.data[:, place].astype(np.float64) for place, name in enumerate(found.feature_names)}
        classes = self.label_kind == "classes"
        columns["target"] = texts([str(found.target_names[t]) for t in found.target]) if classes else found.target
        lines = np.arange(1, len(found.data) + 1)
        return {"train": Table(f"scikit-learn's {self.name}", columns, lines).rows(lines[self.rows] - 1)}
