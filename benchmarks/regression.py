"""`make bench-regression`: a few ratios of the table against what they were when somebody last looked at them.

Only ratios of two things that took turns are compared: they hold, more or less, on another machine. Times do not.
"""

import os
import sys
from collections.abc import Mapping, Sequence

from benchmarks import machine
from benchmarks.row import Outcome, Row, run_row
from benchmarks.rows import ROWS

WORSE = 1.3  # times the recorded ratio, from which on it is a regression
# Medians of docs/speed.md: whoever changes a figure there on purpose changes it here.
RECORDED = {"epoch": 0.84, "frozen": 0.91, "text": 1.07, "loading": 39.7, "predict": 1.03}
REPEATS = 5


def main(
    recorded: Mapping[str, float] = RECORDED, rows: Sequence[Row] = ROWS, repeats: int = REPEATS, quick: bool = False
) -> int:
    """Measure the rows on record and name those that became worse; exit code 1 where there is one, or one failed."""
    print(machine.headline(machine.describe()), flush=True)
    by_name = {row.name: row for row in rows}
    bad = 0
    for name, before in recorded.items():
        outcome = run_row(by_name[name], repeats, quick)
        problem = complaint(outcome, before)
        bad += bool(problem)
        median = f"{outcome.summary.median:.3f}" if outcome.summary else outcome.status
        print(f"{name:12} {median:>8}, recorded {before:g}: {by_name[name].compared}", flush=True)
        if problem:
            # The form in which a GitHub workflow shows a line beside the run; read as plain text elsewhere.
            print(f"::warning title=bench-regression::{problem}" if "GITHUB_ACTIONS" in os.environ else problem)
    return int(bad > 0)


def complaint(outcome: Outcome, before: float) -> str:
    """What is wrong with a row's figure; empty where nothing is."""
    row = outcome.row
    if outcome.summary is None:
        return f"{row.name}: {outcome.status}: {outcome.reason}"
    times_worse = outcome.summary.median / before
    if row.bar is not None and row.bar.sign == ">=":
        times_worse = 1 / times_worse
    if times_worse <= WORSE:
        return ""
    return (
        f"{row.name}: {outcome.summary.median:.3f} is {times_worse:.2f} times worse than the {before:g} on record "
        f'(allowed: {WORSE:g}); look again with: make bench ARGUMENTS="--only {row.name}"'
    )


if __name__ == "__main__":
    sys.exit(main())
