"""All rows of the table, in its order."""

from benchmarks.row import Row
from benchmarks.rows import audio, epoch, frozen, gpu, growth, jobs, loading, memory, stacked, startup, terms, text

ROWS: list[Row] = [
    row
    for part in (epoch, frozen, text, loading, audio, startup, jobs, stacked, memory, growth, terms, gpu)
    for row in part.ROWS
]
