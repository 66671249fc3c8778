"""Columns that count things, such as words of a text: numbers however few values they have, and shares of their row."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from graft.data.readers.numbers import are_whole, known_numbers
from graft.data.readers.table import Table

FEWEST = 30  # columns; fewer that count may each mean something else, such as rooms and inhabitants
MOSTLY = 0.5  # share of zeros from which on columns count things of which a row has few


def columns_of_numbers(table: Table, names: Sequence[str]) -> list[str]:
    """Those of `names` that hold numbers alone and are not the same in every row."""
    return [name for name in names if not table.numbers(name)[1].any() and np.ptp(known(table, name)) > 0]


def known(table: Table, name: str) -> np.ndarray:
    """A column's numbers without missing ones; 0 where all are missing."""
    found = known_numbers(table.numbers(name)[0])
    return found if len(found) else np.zeros(1)


def are_counts(table: Table, names: Sequence[str]) -> bool:
    """Whether columns of numbers are whole, not negative, mostly zero, and half of them above 1 somewhere."""
    if len(names) < FEWEST:
        return False
    zeros = values = above_one = 0
    for name in names:  # one at a time: all together they would be the table once more
        numbers = known(table, name)
        if (numbers < 0).any() or not are_whole(numbers):
            return False
        zeros += int((numbers == 0).sum())
        values += len(numbers)
        above_one += bool(numbers.max() > 1)
    return zeros >= MOSTLY * values and above_one >= MOSTLY * len(names)


def with_shares(table: Table, names: Collection[str]) -> Table:
    """The table with each row's numbers in columns `names` divided by the sum of their absolute values (l1 norm).

    Missing numbers stay missing, and a row of zeros stays one of zeros.
    """
    if not names:
        return table
    numbers = np.stack([table.numbers(name)[0] for name in names], axis=1)
    sums = np.nansum(np.abs(numbers), axis=1, keepdims=True)
    shares = np.divide(numbers, sums, out=numbers.copy(), where=sums > 0)
    return replace(table, columns={**table.columns, **dict(zip(names, shares.T, strict=True))})
