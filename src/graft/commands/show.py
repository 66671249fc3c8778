"""Print what a run or a sweep found: `graft show <folder>`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from graft.errors import GraftError
from graft.race import log as race
from graft.report.summary import table_of
from graft.runs import record
from graft.runs.folder import CONFIG, DONE, ERROR, RunFolder, SweepFolder
from graft.runs.sweeps import Job, read_jobs


def main(arguments: list[str]) -> int:
    """Print a finished run's record, why one is not finished, or a sweep's table; nothing is written."""
    if len(arguments) != 1:
        print("graft show <folder of a run or of a sweep>", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    if not folder.is_dir():
        raise GraftError(f"graft show {folder}: there is no such folder. Runs are in logs/<name>/runs/<time>_<id>.")
    if (folder / CONFIG).is_file():
        show_run(folder)
    else:
        show_sweep(folder)
    return 0


def show_run(folder: Path) -> None:
    """The record of a run."""
    from graft.report import tables  # rich

    if (folder / DONE).is_file():
        results = record.read(folder)
        age = " (of an older Graft)" if record.is_older(results) else ""
        print(f"{results['name']}: {results['status']}{age}")
        if results["status"] == record.FINISHED and "selection" in results:
            tables.print_results(results, folder)
        return
    holder = RunFolder(folder).holder()
    error = (folder / ERROR).read_text().strip() if (folder / ERROR).is_file() else ""
    print(error or (f"In work by {holder}." if holder else "Not finished. Go on with it: resume=true"))


def show_sweep(folder: Path) -> None:
    """The table of a sweep."""
    jobs = read_jobs(folder)
    if not jobs:
        raise GraftError(f"graft show {folder}: this is the folder of neither a run nor a sweep.")
    if raced := race.read(folder):
        print("\n".join(race.lines(raced)))
    elif line := answer_line(folder, jobs):
        print(line)
    print(table_of(jobs))
    if holder := SweepFolder(folder).holder():
        print(f"In work by {holder}.")


def answer_line(folder: Path, jobs: Sequence[Job]) -> str | None:
    """Whether transfer helps, as a report's first line says; None where no job has a score."""
    from graft.report import answer, study  # scipy

    found = study.of_jobs([folder], jobs)
    return answer.first_line(answer.answers(found)) if found.finished else None
