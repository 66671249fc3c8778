"""Several labels a row, a column of yes and no for each: the same for tables and for lists of files."""

from collections.abc import Sequence

import torch

from graft.data.readers.table import Table, to_texts

YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")  # in any case


def yes_or_no(table: Table, labels: Sequence[str]) -> tuple[torch.Tensor, dict[int, str]]:
    """The columns `labels` as 0 and 1 `(N, K)`, and by index what is wrong with rows in which one is neither."""
    found = torch.zeros(len(table), len(labels))
    problems: dict[int, str] = {}
    for place, name in enumerate(labels):
        for index, value in enumerate(to_texts(table.columns[name])):
            word = None if value is None else value.casefold()
            if word in YES:
                found[index, place] = 1
            elif word not in NO:
                what = "is missing" if value is None else f"{value!r} is neither yes nor no (1 or 0)"
                problems.setdefault(index, f"its label {name!r} {what}")
    return found, problems
