"""What test samples can be sliced by: columns of the data, the length of a text or a recording, values of a table."""

import math
from collections.abc import Sequence
from typing import Any, cast

from graft.data.samples import DomainData, Split, rows_of
from graft.errors import GraftError
from graft.inputs.audio.transform import LazyAudio
from graft.inputs.columns import FIRST
from graft.inputs.sequence import Sequences
from graft.inputs.table import TableRows

LENGTH, SECONDS = "length", "seconds"  # words of a text or steps of a sequence; of a recording
NAMES_SHOWN = 20
SAMPLE_RATE = 16_000  # at which recordings are read to measure them


def check_slices(wanted: Sequence[str], target: DomainData) -> None:
    """Raise GraftError for a name in `report.slices` that the target's test samples have nothing of."""
    there = slice_names(target)
    if unknown := [name for name in wanted if name not in there]:
        shown = ", ".join(there[:NAMES_SHOWN]) + (", ..." if len(there) > NAMES_SHOWN else "")
        what = f"These data have: {shown}" if there else "These data have nothing to slice by: report.slices=[]"
        raise GraftError(f"report.slices=[{unknown[0]}]: the test samples of {target.name} have no such value. {what}")


def slice_names(target: DomainData) -> list[str]:
    """Everything that the test samples can be sliced by."""
    measured = {"text": [LENGTH], "sequence": [LENGTH], "audio": [SECONDS]}.get(target.modality, [])
    columns: list[str] = []
    if target.modality == "table":
        columns = [column.name for column in table_of(target.test).columns.all]
    return list(dict.fromkeys([*target.test.columns, *measured, *columns]))


def slice_values(wanted: Sequence[str], target: DomainData) -> dict[str, list[Any]]:
    """By name the value of each test sample, a number or a text, None where it is missing."""
    return {name: values_of(name, target) for name in wanted}


def values_of(name: str, target: DomainData) -> list[Any]:
    """One of the names of `slice_names`."""
    split = target.test
    if name in split.columns:
        return as_numbers(split.columns[name])
    if target.modality == "text":
        texts: Any = split.inputs
        return [len(texts[index].split()) for index in range(len(texts))]
    if target.modality == "sequence":
        return cast(Sequences, rows_of(split)).lengths.tolist()
    if target.modality == "audio":
        recordings = LazyAudio(cast(Any, split.inputs), SAMPLE_RATE)
        return [len(recordings.load(index)) / SAMPLE_RATE for index in range(len(recordings))]
    return column_of(table_of(split), name)


def as_numbers(values: Sequence[Any]) -> list[Any]:
    """A column's values as numbers where all of them are some, else as text."""
    try:
        numbers = [None if value is None else float(value) for value in values]
    except (TypeError, ValueError):
        return [None if value is None else str(value) for value in values]
    return [None if number is None or math.isnan(number) else number for number in numbers]


def table_of(split: Split) -> TableRows:
    """A table's rows."""
    return cast(TableRows, rows_of(split))


def column_of(table: TableRows, name: str) -> list[Any]:
    """A column's values, numbers in the unit of the data."""
    for index, column in enumerate(table.columns.numeric):
        if column.name == name:
            numbers = table.numbers[:, index].double() * column.std + column.mean
            return [None if math.isnan(number) else number for number in numbers.tolist()]
    index, column = next(pair for pair in enumerate(table.columns.categorical) if pair[1].name == name)
    codes = table.codes[:, index].tolist()
    return [column.categories[code - FIRST] if code >= FIRST else None for code in codes]
