"""Remove what finished runs no longer need, after showing it: `graft clean <folder> [--yes]`."""

import sys
from collections.abc import Iterator
from pathlib import Path

from graft.errors import GraftError
from graft.runs.folder import BEST, CHECKPOINTS, DONE, LAST_CHECKPOINT, NONFINITE_BATCH, PREVIOUS, RECORD, RunFolder

MIB = 2**20


def main(arguments: list[str]) -> int:
    """List the files that may go below a folder, and remove them with --yes; returns the exit code.

    Of a run that is done and that no process works in: the checkpoint to resume from where the tested weights are
    there, checkpoints that were never finished, and the batch at which training diverged. Only what a run folder's
    record names is removed.
    """
    words = [word for word in arguments if word != "--yes"]
    if len(words) != 1 or words[0].startswith("-"):
        print("graft clean <folder of a run, of a sweep, or of many, such as logs> [--yes]", file=sys.stderr)
        return 2
    folder = Path(words[0])
    if not folder.is_dir():
        raise GraftError(f"graft clean {folder}: there is no such folder.")
    found = [(run, name) for run in run_folders(folder) for name in not_needed(run)]
    for run, name in found:
        print(f"{(run.path / name).stat().st_size / MIB:10,.1f} MiB  {run.path / name}")
    total = sum((run.path / name).stat().st_size for run, name in found) / MIB
    if "--yes" in arguments:
        for run in dict.fromkeys(run for run, _ in found):
            run.take()  # nobody goes on with the run meanwhile
            try:
                for name in not_needed(run):
                    run.remove(name)
            finally:
                run.release()
    done = "removed" if "--yes" in arguments else f"may go: graft clean {folder} --yes"
    print(f"{total:10,.1f} MiB in {len(found)} {'file' if len(found) == 1 else 'files'} {done if found else 'may go'}")
    return 0


def run_folders(folder: Path) -> Iterator[RunFolder]:
    """Every run folder of Graft's at or below a folder."""
    for record in sorted([*folder.glob(RECORD), *folder.rglob(f"*/{RECORD}")]):
        run = RunFolder(record.parent)
        try:
            if run.record and run.record.kind == RunFolder.kind:
                yield run
        except GraftError as error:
            print(f"left alone: {error}", file=sys.stderr)


def not_needed(run: RunFolder) -> Iterator[str]:
    """Names of files in a run folder that nothing needs any more."""
    if not (run.path / DONE).is_file() or (not run.is_held and run.holder()):
        return
    checkpoints = run.path / CHECKPOINTS
    names = [f"{CHECKPOINTS}/{BEST}.unfinished", f"{LAST_CHECKPOINT.as_posix()}.unfinished", NONFINITE_BATCH]
    names.append(f"{CHECKPOINTS}/{PREVIOUS}")
    if (checkpoints / BEST).is_file():
        names.append(LAST_CHECKPOINT.as_posix())
    record = run.record
    assert record is not None
    yield from (name for name in names if name in record.files and (run.path / name).is_file())
