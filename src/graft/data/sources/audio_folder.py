"""Your own recordings: a folder per class, or labels and speakers in the names of the files."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graft.data.readers.folders import (
    Listing,
    beside_classes,
    class_listings,
    listing_of,
    official_folders,
)
from graft.data.readers.labelled import Record
from graft.data.readers.recordings import EXTENSIONS, LabelledRecordings
from graft.data.samples import HELD_OUT
from graft.errors import GraftError
from graft.files import user_path

LABEL = "label"  # the group of a pattern that is the class
SHOWN = 20  # values of a group in a message

Where = Mapping[str, Sequence[Any]]  # group -> values of which a file has one


class AudioFolder(LabelledRecordings):
    """`root/<class>/*.wav`, with or without `train`, `val` and `test` above; or any files whose names fit a pattern."""

    unit = "files"

    def __init__(
        self,
        root: str,
        pattern: str | None = None,
        where: Where | None = None,
        val_where: Where | None = None,
        test_where: Where | None = None,
        **settings: Any,
    ) -> None:
        """`pattern` is a regular expression with named groups for a whole path below `root`, without its ending.

        `where` says which files count, `val_where` and `test_where` which of them make up those splits.
        """
        super().__init__(**settings)
        self._left_out: dict[str, Counter[str]] = {}
        self.root = user_path(root)
        self.pattern = pattern
        chosen = {"where": where, "val_where": val_where, "test_where": test_where}
        self.chosen = {key: texts_of(values) for key, values in chosen.items() if values}

    @property
    def title(self) -> str:
        """The folder's name, and which of its files count."""
        values = [value for allowed in self.chosen.get("where", {}).values() for value in allowed]
        return " ".join([self.root.name, *([f"({', '.join(values)})"] if values else [])])

    @property
    def advice(self) -> str:
        """Where classes come from."""
        return f"Give a folder for each class, or {self.key}.pattern with a group {LABEL} that differs."

    def origin(self, split: str) -> str:
        """The folder."""
        return f"{self.key}.root={self.root}" + (f", {split}" if split != "train" else "")

    def list_files(self) -> dict[str, list[Record]]:
        """Files of each class folder, or of the whole folder by their names."""
        if not self.root.is_dir():
            raise GraftError(
                f"{self.key}.root={self.root}: no such folder. Give a folder with one sub-folder of recordings per "
                f"class, or with a {self.key}.pattern for their names: {self.key}.root=/path/to/recordings"
            )
        if self.pattern is not None:
            return self._by_name(self._compiled())
        if self.chosen:
            raise GraftError(
                f"{self.key}.{next(iter(self.chosen))}: it chooses by the groups of {self.key}.pattern. Give one, "
                rf"such as '(?P<label>\d)_(?P<speaker>\w+)_(?P<index>\d+)'."
            )
        origin = f"{self.key}.root={self.root}"
        folders = official_folders(self.root, f"{self.key}.root")
        listings = {
            split: class_listings(folder, EXTENSIONS, origin, "recordings") for split, folder in folders.items()
        }
        if not listings["train"]:
            raise GraftError(f"{origin}: no sub-folders of recordings there. {self.advice}")
        self._left_out = {
            split: sum((one.left_out for one in found.values()), Counter()) for split, found in listings.items()
        }
        self._left_out["train"] += beside_classes(self.root, [*folders.values()], EXTENSIONS)
        return {
            split: [record for label, listing in found.items() for record in records_of(listing, label)]
            for split, found in listings.items()
        }

    def left_out(self) -> Mapping[str, Mapping[str, int]]:
        """Files of other kinds, hidden ones, and those beside the folders of classes."""
        return self._left_out

    def _compiled(self) -> re.Pattern:
        assert self.pattern is not None
        try:
            pattern = re.compile(self.pattern)
        except re.error as error:
            raise GraftError(
                f"{self.key}.pattern={self.pattern}: this is no regular expression ({error}). "
                "In a shell it stands in single quotes."
            ) from None
        if LABEL not in pattern.groupindex:
            raise GraftError(f"{self.key}.pattern={self.pattern}: it has no group (?P<{LABEL}>...) for the class.")
        for key, where in self.chosen.items():
            if unknown := [group for group in where if group not in pattern.groupindex]:
                raise GraftError(
                    f"{self.key}.{key}: the pattern has no group {unknown[0]!r}. "
                    f"Groups: {', '.join(pattern.groupindex)}."
                )
        return pattern

    def _by_name(self, pattern: re.Pattern) -> dict[str, list[Record]]:
        """Files whose names fit the pattern, in the splits that the config says; others are bad rows of `train`."""
        listing = listing_of(self.root, EXTENSIONS)
        paths, self._left_out = listing.files, {"train": listing.left_out}
        if not paths:
            raise GraftError(
                f"{self.key}.root={self.root}: no recordings there. Read are {', '.join(sorted(EXTENSIONS))}."
            )
        matches = {path: pattern.fullmatch(path.relative_to(self.root).with_suffix("").as_posix()) for path in paths}
        groups = {path: match.groupdict(default="") for path, match in matches.items() if match}
        self._refuse_unknown_values(groups.values())
        splits: dict[str, list[Record]] = {"train": [unread_record(*one) for one in listing.unread]}
        splits |= {split: [] for split in HELD_OUT if f"{split}_where" in self.chosen}
        for path in paths:
            if path not in groups:
                problem = f"its name does not fit {self.key}.pattern={self.pattern}"
                splits["train"].append(Record(path, None, path, "", problem))
            elif fits(groups[path], self.chosen.get("where", {})):
                split = next(
                    (name for name in splits if name != "train" and fits(groups[path], self.chosen[f"{name}_where"])),
                    "train",
                )
                splits[split].append(Record(path, None, path, groups[path][LABEL], columns=groups[path]))
        return splits

    def _refuse_unknown_values(self, groups: Any) -> None:
        """Raise GraftError for a value that no file has."""
        for key, where in self.chosen.items():
            for group, wanted in where.items():
                present = sorted({found[group] for found in groups}, key=lambda value: (len(value), value))
                if unknown := [value for value in wanted if value not in present]:
                    more = ", ..." if len(present) > SHOWN else ""
                    raise GraftError(
                        f"{self.key}.{key}.{group}: no file in {self.root} has {unknown[0]!r} there. "
                        f"There is {', '.join(present[:SHOWN]) or 'none'}{more}."
                    )


def records_of(listing: Listing, label: str) -> list[Record]:
    """The files of a class, with those that cannot be opened."""
    return [Record(path, None, path, label) for path in listing.files] + [unread_record(*one) for one in listing.unread]


def unread_record(place: str, problem: str) -> Record:
    """What is called like a recording and cannot be opened."""
    return Record(Path(place), None, None, "", problem)


def texts_of(where: Where) -> dict[str, tuple[str, ...]]:
    """The values as they stand in file names; a single one needs no list."""
    return {
        group: tuple(
            str(value)
            for value in (values if isinstance(values, Sequence) and not isinstance(values, str) else [values])
        )
        for group, values in where.items()
    }


def fits(groups: Mapping[str, str], where: Mapping[str, Sequence[str]]) -> bool:
    """Whether a file's groups have one of the allowed values each."""
    return all(groups[group] in allowed for group, allowed in where.items())
