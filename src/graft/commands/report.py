"""Write a page on what a run or a sweep found: `graft report <folder> [<folder> ...] [to=<folder>]`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from graft.errors import GraftError
from graft.files import disk_message, user_path
from graft.runs.folder import CONFIG, RESULTS

USAGE = "graft report <folder of a run or of a sweep> [<more sweeps, read as one> ...] [to=<folder>]"


def main(arguments: list[str]) -> int:
    """Write report.html and report/ into the folder, or into another one; returns the exit code."""
    folders = [user_path(word) for word in arguments if not word.startswith("to=")]
    to = next((user_path(word.removeprefix("to=")) for word in arguments if word.startswith("to=")), None)
    if not folders or any(str(folder).startswith("-") for folder in folders):
        print(USAGE, file=sys.stderr)
        return 2
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise GraftError(
            f"graft report {missing[0]}: there is no such folder. Sweeps are in logs/<name>/sweeps/<time>_<id>."
        )
    if len(folders) > 1 and to is None:
        raise GraftError("graft report: several folders make one page, which belongs to none of them: to=<folder>")
    report(folders, to)
    return 0


def report(folders: Sequence[Path], to: Path | None) -> None:
    """Write the page of a run, or of sweeps that are read as one, and print its first line and where it is."""
    from graft.report import looks, publish, run_page, study, sweep_page  # matplotlib, scipy

    runs = [folder for folder in folders if (folder / CONFIG).is_file() or (folder / RESULTS).is_file()]
    if runs and len(folders) > 1:
        raise GraftError(f"graft report: {runs[0]} is a run, and only sweeps can be read as one.")
    if runs:
        if not (runs[0] / RESULTS).is_file():
            raise GraftError(f"graft report {runs[0]}: the run is not finished. Go on with it: resume=true")
        page = run_page.page(runs[0])
    else:
        found = study.read(folders)
        if not found.jobs:
            raise GraftError(f"graft report {folders[0]}: this is the folder of neither a run nor a sweep.")
        if not found.finished:
            raise GraftError(
                f"graft report {folders[0]}: no job has finished with a score. See: graft show {folders[0]}"
            )
        page = sweep_page.page(found)
        looks.remember(folders, study.repeats_of(found.settings))
    place = to or folders[0]
    try:
        file = publish.into(page, to) if to else publish.into_own(page, folders[0], is_run=bool(runs))
    except OSError as error:
        raise GraftError(disk_message(error, place) or f"{place} cannot be written: {error}") from None
    print(page.first_line)
    print(file)
