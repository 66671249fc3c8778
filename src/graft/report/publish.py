"""Where a report goes: into the folder of its run or sweep, whose record names what is Graft's, or elsewhere."""

import sys
from pathlib import Path

from graft.errors import FolderRefused, GraftError, first_line
from graft.report import looks, out_of_fold, run_page, study, sweep_page
from graft.report.page import Page
from graft.runs.folder import REPORT, REPORT_FILES, RunFolder, SweepFolder

MARK = b'content="Graft"'  # in a page of Graft's


def into_own(page: Page, folder: Path, *, is_run: bool) -> Path:
    """Write it into its run's or sweep's folder; FolderRefused where another process works or a stranger's file is."""
    owner = (RunFolder if is_run else SweepFolder)(folder)
    names = [REPORT, *page.files()]
    with owner.owned(adopt=True):
        record = owner.record
        assert record is not None
        if taken := [name for name in names if name not in record.files and (folder / name).exists()]:
            raise FolderRefused(
                f"{folder / taken[0]} is in the way: Graft did not write it. Rename it, or write elsewhere: to=<folder>"
            )
        owner.add(names)
        for name in record.files:
            if name.startswith(f"{REPORT_FILES}/") and name not in names:  # of an earlier page
                owner.remove(name)
        return page.write(folder)


def into(page: Page, folder: Path) -> Path:
    """Write it into any folder, which is made; GraftError where a page is that is not Graft's."""
    file = folder / REPORT
    if file.is_file() and MARK not in file.read_bytes()[:2000]:
        raise GraftError(f"{file} is in the way: Graft did not write it. Name another folder: to=<folder>")
    folder.mkdir(parents=True, exist_ok=True)
    return page.write(folder)


def page_of_run(folder: Path) -> Page | None:
    """The page of a run that has just finished; None where that fails, which is printed and changes nothing of it."""
    try:
        return run_page.page(folder)
    except Exception as error:
        print(f"W&B gets no report: {first_line(error)}. Try: graft report {folder}", file=sys.stderr)
        return None


def of_sweep(folder: Path) -> str | None:
    """Write a sweep's page at its end; its first line and file as text, None where no job has a score."""
    found = study.read([folder])
    if not found.finished:
        return None
    page = sweep_page.page(found)
    looks.remember(found.folders, study.repeats_of(found.settings))
    written = [page.first_line, str(into_own(page, folder, is_run=False))]
    if file := out_of_fold.write(found, folder):
        written.append(f"out-of-fold predictions: {file}")
    return "\n".join(written)
