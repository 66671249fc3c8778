"""How often a sweep's answer has been looked at: seeds that are added because of a look make a claim harder.

Who adds seeds until an interval leaves out 0 finds one by chance. Each page written counts as a look, where seeds have
come since the last one, and the k-th look claims at Pocock's level for k looks (Pocock, 1977).
"""

import contextlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from graft.errors import FolderRefused
from graft.files import write_whole
from graft.runs.folder import LOOKS, SweepFolder
from graft.runs.record import TestSplit

POCOCK = (0.05, 0.0294, 0.0221, 0.0182, 0.0158, 0.0142, 0.0130, 0.0120, 0.0112, 0.0106)  # a look, at .05 in all

Repeat = tuple[TestSplit, int | None]  # split or fold, and seed of a job


def level(look: int) -> float:
    """At which p-value the `look`-th look makes a claim, from 1."""
    return POCOCK[look - 1] if look <= len(POCOCK) else POCOCK[-1] * len(POCOCK) / look


def number(folders: Sequence[Path], repeats: Iterable[Repeat]) -> int:
    """Which look one at these repeats is: the first at them counts, where several folders have seen different ones."""
    now = listed(repeats)
    return max((place(seen(folder), now) for folder in folders), default=1)


def remember(folders: Sequence[Path], repeats: Iterable[Repeat]) -> None:
    """Write this look into the sweeps' folders; one that cannot be written, such as a colleague's, keeps no count."""
    now = listed(repeats)
    for folder in folders:
        if now not in (found := seen(folder)):
            with contextlib.suppress(FolderRefused, OSError), (owner := SweepFolder(folder)).owned(adopt=True):
                owner.add([LOOKS])
                write_whole(folder / LOOKS, json.dumps([*found, now]) + "\n")


def listed(repeats: Iterable[Repeat]) -> list[list[TestSplit]]:
    """Repeats as a file holds them, in one order."""
    return sorted(map(list, set(repeats)), key=str)


def seen(folder: Path) -> list[list[list[TestSplit]]]:
    """The repeats of each look at a sweep so far; none where its file is torn, as if nobody had looked."""
    try:
        found = json.loads((folder / LOOKS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []


def place(found: list[list[list[TestSplit]]], now: list[list[TestSplit]]) -> int:
    """The number of a look among those of a folder."""
    return found.index(now) + 1 if now in found else len(found) + 1
