"""What is known of a table's columns: what a backbone for them has to know, and what makes their values comparable."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

MISSING, UNKNOWN, FIRST = 0, 1, 2  # codes: no value, a category that training never saw, the first of those it did
NUMERIC, CATEGORICAL = "numeric", "categorical"


@dataclass(frozen=True)
class Column:
    """A column of numbers, or of categories; what was fitted on training rows is not part of what it is."""

    name: str
    kind: str  # numeric | categorical
    categories: tuple[str, ...] = ()
    mean: float = field(default=0.0, repr=False)
    std: float = field(default=1.0, repr=False)
    median: float = field(default=0.0, repr=False)  # stands in for a missing number

    @property
    def key(self) -> str:
        """Kind and name: columns of two tables are the same where both agree."""
        return f"{self.kind}_{self.name}"


class Columns:
    """A table's columns in their order; no dataclass, because Hydra would make a config of one."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.all = tuple(columns)

    @property
    def numeric(self) -> tuple[Column, ...]:
        """Those with numbers."""
        return tuple(column for column in self.all if column.kind == NUMERIC)

    @property
    def categorical(self) -> tuple[Column, ...]:
        """Those with categories."""
        return tuple(column for column in self.all if column.kind == CATEGORICAL)

    def to_json(self) -> str:
        """All of them with what was fitted."""
        return json.dumps([vars(column) for column in self.all], indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Columns":
        """What `to_json` wrote."""
        return cls([Column(**{**one, "categories": tuple(one["categories"])}) for one in json.loads(text)])

    def __repr__(self) -> str:
        return f"Columns({list(self.all)})"
