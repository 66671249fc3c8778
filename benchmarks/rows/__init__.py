"""All rows of the table, in its order."""

from benchmarks.row import Row
from benchmarks.rows import audio, epoch, frozen, gpu, growth, jobs, loading, memory, predict, startup, text

ROWS: list[Row] = [
    row
    for part in (epoch, frozen, text, loading, audio, startup, jobs, memory, predict, growth, gpu)
    for row in part.ROWS
]
