"""Write a page on what a run or a sweep found: `graft report <folder> [<folder> ...] [to=<folder>]`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graft.cli.words import names_in
from graft.errors import GraftError
from graft.files import disk_message, user_path
from graft.runs.folder import CONFIG, RESULTS

USAGE = "graft report <folder of a run or of a sweep> [<more sweeps, read as one> ...] [to=<folder>]"
USAGE += "; of a run: [slices=[<name>,...]] [allow=[<package that you trust>]]"
KEYS = ("to", "slices", "allow")


def main(arguments: list[str]) -> int:
    """Write report.html and report/ into the folder, or into another one; returns the exit code."""
    settings = {key: value for key, sign, value in (word.partition("=") for word in arguments) if sign and key in KEYS}
    folders = [user_path(word) for word in arguments if word.partition("=")[0] not in settings]
    if not folders or any(str(folder).startswith("-") for folder in folders):
        print(USAGE, file=sys.stderr)
        return 2
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise GraftError(
            f"graft report {missing[0]}: there is no such folder. Sweeps are in logs/<name>/sweeps/<time>_<id>."
        )
    if len(folders) > 1 and "to" not in settings:
        raise GraftError("graft report: several folders make one page, which belongs to none of them: to=<folder>")
    names = {key: names_in(settings.get(key, "")) for key in ("slices", "allow")}
    report(folders, user_path(settings["to"]) if "to" in settings else None, **names)
    return 0


def report(folders: Sequence[Path], to: Path | None, slices: Sequence[str], allow: Sequence[str]) -> None:
    """Write the page of a run, or of sweeps that are read as one, and print its first line and where it is."""
    from graft.report import looks, publish, run_page, study, sweep_page  # matplotlib, scipy

    runs = [folder for folder in folders if (folder / CONFIG).is_file() or (folder / RESULTS).is_file()]
    if runs and len(folders) > 1:
        raise GraftError(f"graft report: {runs[0]} is a run, and only sweeps can be read as one.")
    if runs:
        if not (runs[0] / RESULTS).is_file():
            raise GraftError(f"graft report {runs[0]}: the run is not finished. Go on with it: resume=true")
        page = run_page.page(runs[0], inspection_of(runs[0], slices, allow))
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


def inspection_of(folder: Path, slices: Sequence[str], allow: Sequence[str]) -> dict[str, Any]:
    """What a run's network does with its data, or only why that cannot be found, as `failed`.

    Raises GraftError where slices were asked for and cannot be found.
    """
    from graft.inspection import kept
    from graft.report.kept import target_predictions
    from graft.report.run_page import may_show
    from graft.runs import record

    content = may_show(folder)
    key = kept.key_of(folder, slices, content)
    if (before := kept.read(folder, key)) is not None:
        return before
    from graft.inspection.findings import inspected  # torch

    print("Looking into the network and its data again; the next report of this run finds that in report/", flush=True)
    found, results = target_predictions(folder), record.read(folder)
    try:
        return {"key": key, **inspected(folder, results, found, allow=allow, slices=slices, content=content)}
    except GraftError as error:
        if slices:
            raise
        return {"failed": f"Nothing is shown of the network and its data: {error}"}
