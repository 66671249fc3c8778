"""All rows of the table, in its order."""

from benchmarks.row import Row
from benchmarks.rows import (
    audio,
    epoch,
    first_epoch,
    frozen,
    gpu,
    growth,
    jobs,
    loading,
    memory,
    predict,
    stacked,
    startup,
    step,
    terms,
    text,
)

PARTS = (
    epoch,
    frozen,
    text,
    loading,
    audio,
    predict,
    startup,
    jobs,
    stacked,
    memory,
    first_epoch,
    growth,
    step,
    terms,
    gpu,
)

ROWS: list[Row] = [row for part in PARTS for row in part.ROWS]
