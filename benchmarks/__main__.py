"""`make bench`: what Graft costs and saves, as a table of ratios with bars, a picture and logs/bench/bench.json.

Quote medians with their interval and the machine. On a busy machine only the ratios mean something, and those little.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, pictures, table
from benchmarks.commands import ROOT
from benchmarks.row import THREADS, Outcome, Row, run_row
from benchmarks.rows import ROWS

FOLDER = ROOT / "logs" / "bench"


def main(arguments: Sequence[str] | None = None, rows: Sequence[Row] = ROWS, folder: Path = FOLDER) -> int:
    """Measure the rows that were asked for; exit code 1 where one of them failed."""
    options = parse(arguments, [row.name for row in rows])
    if options.list:
        for row in rows:
            print(f"{row.name:16} {row.compared}, {row.bar or 'no bar'}")
        return 0
    described = machine.describe()
    print(machine.headline(described), flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    for row in rows:
        if options.only and row.name not in options.only:
            continue
        print(f"{row.name}: {row.compared} ...", file=sys.stderr, flush=True)
        outcome = run_row(row, options.repeats, options.quick, options.threads)
        outcomes.append(outcome)
        print(f"  {outcome.status} in {outcome.seconds:.0f} s", file=sys.stderr, flush=True)
        report = table.as_json(outcomes, described, options.quick)
        (folder / "bench.json").write_text(json.dumps(report, indent=2) + "\n")  # after each: a Ctrl-C loses nothing
    print(f"\n{table.render(outcomes)}")
    if options.quick:
        print("\n--quick: sizes so small that the figures mean nothing")
    if pictures.draw_growth(outcomes, folder / "growth.png"):
        print(f"\n{folder / 'growth.png'}")
    return int(any(outcome.status == "failed" for outcome in outcomes))


def parse(arguments: Sequence[str] | None, names: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What Graft costs and saves.")
    parser.add_argument("--only", nargs="+", choices=names, metavar="ROW", help="measure these rows only")
    parser.add_argument("--repeats", type=int, help="repeats of each row, in place of its own number")
    parser.add_argument("--threads", type=int, default=THREADS, help="of every contestant; the bars were set for 2")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does the harness work?")
    parser.add_argument("--list", action="store_true", help="list the rows and their bars, measure nothing")
    options = parser.parse_args(arguments)
    if options.repeats is not None and options.repeats < 1:
        parser.error("--repeats: at least 1")
    if options.threads < 1:
        parser.error("--threads: at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
