"""Show what each selection rule would have picked, and its regret: `graft ledger <folder> ... [to=<folder>]`."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from graft.errors import GraftError
from graft.files import disk_message, user_path, write_whole
from graft.runs.folder import CONFIG, LEDGER_TABLES, RunFolder, SweepFolder

USAGE = "graft ledger <folder of a run or of a sweep> [<more, read as one> ...] [to=<folder>]"
KEY = "save.ledger=5"
MARK = "# Ledger of Graft"  # how ledger.md begins


def main(arguments: list[str]) -> int:
    """Print regrets, scores and picks, and write them as ledger.csv, .md and .tex; returns the exit code.

    They go into the folder, where there is one alone, or into `to`.
    """
    folders = [user_path(word) for word in arguments if not word.startswith("to=")]
    to = next((user_path(word.removeprefix("to=")) for word in arguments if word.startswith("to=")), None)
    if not folders or any(str(folder).startswith("-") for folder in folders):
        print(USAGE, file=sys.stderr)
        return 2
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise GraftError(
            f"graft ledger {missing[0]}: there is no such folder. Sweeps are in logs/<name>/sweeps/<time>_<id>."
        )
    if len(folders) > 1 and to is None:
        raise GraftError("graft ledger: several folders make one ledger, which belongs to none of them: to=<folder>")
    show(folders, to)
    return 0


def show(folders: Sequence[Path], to: Path | None) -> None:
    """Print the ledger of runs and sweeps that are read as one, write it, and print where it is."""
    from graft.report import ledger  # scipy
    from graft.report.tables import print_table  # rich

    found = ledger.read(folders)
    if not found.cells:
        raise GraftError(
            f"graft ledger {folders[0]}: no finished run there kept a ledger. Train with {KEY}, which scores 5 "
            "checkpoints of a run by every rule, with a labelled source and the target's classes."
        )
    tables = ledger.tables(found)
    for table in tables:
        print(f"\n{table.title}\n")
        print_table(table.header, table.rows, words=table.numbers)
    print()
    for caption in dict.fromkeys(table.caption for table in tables):
        print(caption)
    if not {*found.named} & {*found.rules}:
        print(f"No rule was named beforehand: the configs have selection={', '.join(found.named)}")
    for reason in dict.fromkeys(reason for cell in found.cells for reason in cell.ledger["left_out"].values()):
        print(f"without scores: {reason}")
    if found.without or found.unfinished:
        print(f"left out: {found.without} runs without a ledger, {found.unfinished} that did not finish")
    contents = {
        "ledger.csv": ledger.every_pick(found).as_csv(),
        "ledger.md": f"{MARK}\n\n"
        + "\n".join(f"## {one.title}\n\n{one.as_markdown()}\n{one.caption}\n" for one in tables),
        "ledger.tex": "\n".join(table.as_latex() for table in tables),
    }
    place = to or folders[0]
    try:
        into(contents, to) if to else into_own(contents, folders[0])
    except OSError as error:
        raise GraftError(disk_message(error, place) or f"{place} cannot be written: {error}") from None
    print(place / "ledger.csv")


def into_own(contents: Mapping[str, str], folder: Path) -> None:
    """Write files into their run's or sweep's folder; FolderRefused where another process works or a stranger's is."""
    owner = (RunFolder if (folder / CONFIG).is_file() else SweepFolder)(folder)
    with owner.owned(adopt=True):
        owner.add(LEDGER_TABLES)
        write(contents, folder)


def into(contents: Mapping[str, str], folder: Path) -> None:
    """Write files into any folder, which is made; GraftError where one of them is there that is not Graft's."""
    page = folder / "ledger.md"
    ours = page.is_file() and page.read_text(errors="replace").startswith(MARK)
    if not ours and (taken := [name for name in contents if (folder / name).exists()]):
        raise GraftError(f"{folder / taken[0]} is in the way: Graft did not write it. Name another folder: to=<folder>")
    folder.mkdir(parents=True, exist_ok=True)
    write(contents, folder)


def write(contents: Mapping[str, str], folder: Path) -> None:
    """Write files, each whole or not at all."""
    for name, text in contents.items():
        write_whole(folder / name, text)
