"""All rows of the table, in its order."""

from tests.benchmarks.row import Row
from tests.benchmarks.rows import audio, epoch, frozen, gpu, growth, jobs, loading, memory, startup, text

ROWS: list[Row] = [
    row for part in (epoch, frozen, text, loading, audio, startup, jobs, memory, growth, gpu) for row in part.ROWS
]
