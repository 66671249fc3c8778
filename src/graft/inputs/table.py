"""A table in memory, a backbone's spec of it, and how its rows become what the backbone takes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graft.cache.disk import DiskCache
from graft.data.samples import Split, check_unchanged, rows_of
from graft.errors import listed
from graft.inputs.base import Fields
from graft.inputs.columns import FIRST, MISSING, UNKNOWN, Columns

COLUMNS_SHOWN = 20


@dataclass(frozen=True)
class TableSpec:
    """The columns that a backbone was made for."""

    columns: Columns

    def __str__(self) -> str:
        names = [f"`{column.name}`" for column in self.columns.all]
        return f"{len(names):,} columns ({listed(names, COLUMNS_SHOWN)})"

    def transform(self, augment: str = "none", shift: str | None = None) -> Any:
        """Rows of any table in these columns."""

        return TableTransform(self.columns, augment, shift)


@dataclass(frozen=True)
class TableRows:
    """Standardised numbers `(N, n)`, NaN where one is missing, and codes `(N, k)` of the categories."""

    columns: Columns
    numbers: Tensor
    codes: Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, indices: Tensor | int) -> "TableRows":
        if isinstance(indices, int):
            return TableRows(self.columns, self.numbers[indices], self.codes[indices])
        # Row by row; an index in brackets gathers number by number, which takes five times as long.
        return TableRows(self.columns, self.numbers.index_select(0, indices), self.codes.index_select(0, indices))

    def joined(self, others: "TableRows") -> "TableRows":
        """These rows, and behind them others of the same columns."""
        numbers, codes = torch.cat([self.numbers, others.numbers]), torch.cat([self.codes, others.codes])
        return TableRows(self.columns, numbers, codes)


class TableTransform:
    """Rows of any table to `Fields` of a backbone's columns: numbers `(B, n)`, missing `(B, n)`, codes `(B, k)`.

    Columns are found by name and kind. One of numbers that a table lacks is at its mean in every row, where a
    perceptron learns nothing from it, and one of categories is missing; one that the backbone does not know is left
    out, and a category that it does not know is unknown to it.
    """

    augment = None

    def __init__(self, columns: Columns, augment: str = "none", shift: str | None = None) -> None:
        check_unchanged("tables", augment, shift)
        self.columns = columns
        self.key = repr(columns)  # asked for at every epoch: of thousands of columns it takes a while
        self.medians = torch.tensor([(column.median - column.mean) / column.std for column in columns.numeric])

    def prepare(self, split: Split, cache: DiskCache | None) -> TableRows:
        """The split's rows in the backbone's columns."""
        table = rows_of(split)
        indices = {column.key: index for index, column in enumerate(table.columns.numeric)}
        if list(indices) == [column.key for column in self.columns.numeric]:
            numbers = table.numbers
        else:
            numbers = torch.zeros(len(table), len(self.columns.numeric))
            shared = [(i, indices[c.key]) for i, c in enumerate(self.columns.numeric) if c.key in indices]
            numbers[:, [own for own, _ in shared]] = table.numbers[:, [theirs for _, theirs in shared]]
        if [(one.key, one.categories) for one in table.columns.categorical] == [
            (one.key, one.categories) for one in self.columns.categorical
        ]:
            return TableRows(self.columns, numbers, table.codes)
        codes = torch.full((len(table), len(self.columns.categorical)), MISSING)
        indices = {column.key: index for index, column in enumerate(table.columns.categorical)}
        for index, column in enumerate(self.columns.categorical):
            if column.key in indices:
                theirs = indices[column.key]
                own_codes = codes_in(table.columns.categorical[theirs].categories, column.categories)
                codes[:, index] = own_codes[table.codes[:, theirs]]
        return TableRows(self.columns, numbers, codes)

    def collate(self, rows: TableRows) -> Fields:
        """Rows `(B, ...)` with the training median in the place of missing numbers, and a mark where that is so."""
        missing = rows.numbers.isnan()
        numbers = torch.where(missing, self.medians.to(rows.numbers), rows.numbers)
        return Fields({"numbers": numbers, "missing": missing.to(numbers), "codes": rows.codes})


def codes_in(theirs: tuple[str, ...], own: tuple[str, ...]) -> Tensor:
    """The code that each of another table's codes has here, `(2 + categories)`."""
    known = {name: code for code, name in enumerate(own, start=FIRST)}
    return torch.tensor([MISSING, UNKNOWN, *(known.get(name, UNKNOWN) for name in theirs)])
