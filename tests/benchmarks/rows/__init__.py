"""All rows of the table, in its order."""

from tests.benchmarks.row import Row
from tests.benchmarks.rows import epoch, frozen, gpu, growth, jobs, loading, memory, startup, text

ROWS: list[Row] = [
    row for part in (epoch, frozen, text, loading, startup, jobs, memory, growth, gpu) for row in part.ROWS
]
