"""The tables that come with scikit-learn."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from scipy.special import expit

from graft.data.readers.table import Table, texts
from graft.data.readers.table_source import TABLES, TableSource
from graft.data.samples import seed_of
from graft.errors import GraftError

OF_NUMBERS = ("diabetes",)  # tables whose label is no class
ROWS = {"all": slice(None), "even": slice(1, None, 2), "odd": slice(None, None, 2)}  # counted from 1
SHIFTED = ("low", "high")  # two halves, drawn by a column
STEEPNESS = 2.0  # of the odds with which a row is among the high ones, for each standard deviation


class SklearnTable(TableSource):
    """A table that comes with scikit-learn: breast_cancer, wine (classes) or diabetes (numbers)."""

    title = ""  # the table's name

    def __init__(
        self,
        name: str,
        rows: Literal["all", "even", "odd", "low", "high"] = "all",
        by: str | None = None,
        **table: Any,
    ) -> None:
        """`rows` are all, or those of one of two tables of different rows: every second one, the even or the odd ones;

        or the low or the high ones by column `by`: a row is high with the logistic of STEEPNESS times its z-score as
        its probability, so that the two tables are alike but for a shift in this column and what goes with it.
        """
        super().__init__("target", **table)
        self.name = self.title = name
        self.rows, self.by = rows, by

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
        table = Table(f"scikit-learn's {self.name}", columns, np.arange(1, len(found.data) + 1))
        return {"train": table.rows(self._chosen(columns))}

    def _chosen(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Places of the rows that count."""
        places = np.arange(len(columns["target"]))
        if self.rows in ROWS:
            return places[ROWS[self.rows]]
        numbers = [name for name in columns if name != "target"]
        if self.by not in numbers:
            raise GraftError(
                f"{self.key}.by={self.by}: with {self.key}.rows={self.rows} it names the column by which rows are low "
                f"or high, one of {', '.join(numbers)}."
            )
        values = columns[self.by]
        high = expit(STEEPNESS * (values - values.mean()) / values.std())
        drawn = np.random.default_rng(seed_of(self.name, self.by)).random(len(places)) < high
        return places[drawn == (self.rows == SHIFTED[1])]
