"""A folder per class, with official train, val and test folders above or without: what images and recordings share."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from graft.errors import GraftError, first_line

SPLIT_NAMES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing", "tst"),
}
# What may stand around such a name: train_set, test-images, val2017, 01_train
AROUND = re.compile(r"^\d+|(set|data|images?|imgs?|split|samples|\d+)$")
FOLD = re.compile(r"(fold|split|part|cv|run)?\d+|holdout|eval|evaluation")
NO_CLASS = ("__MACOSX",)  # what archives leave behind
SHOWN = 5
LONGEST_SHOWN = 300  # characters of a path in a message


@dataclass(frozen=True)
class Listing:
    """The files of a folder that are read, those that are not with a reason and a number, and what cannot be opened."""

    files: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    unread: list[tuple[str, str]] = field(default_factory=list)


def official_folders(root: Path, key: str = "data.target.root") -> dict[str, Path]:
    """The folder of each official split; `train` alone, which is the root, where there is none.

    Raises GraftError where two folders may be one split, where there is none to train on, and where folders that look
    like splits would become classes.
    """
    folders = class_folders(root)
    deep = [folder for folder in folders if class_folders(folder)]
    found: dict[str, list[Path]] = {}
    for folder in deep:
        if name := split_of(folder.name):
            found.setdefault(name, []).append(folder)
    for name, paths in found.items():
        if len(paths) > 1 and "train" in found:
            listed = ", ".join(path.name for path in paths)
            raise GraftError(f"{key}={root}: {listed} each look like the {name} split. Leave one of them there.")
    if "train" in found:
        return {name: found[name][0] for name in SPLIT_NAMES if name in found}
    if found:
        listed = ", ".join(path.name for paths in found.values() for path in paths)
        raise GraftError(
            f"{key}={root}: {listed} look like splits, but there is none to train on. Name that one train, or give a "
            f"folder with one sub-folder per class: {key}={next(iter(found.values()))[0]}"
        )
    names = [folder.name for folder in deep]
    if deep and len(deep) == len(folders) and all(looks_like_a_split(name) for name in names):
        raise GraftError(
            f"{key}={root}: its folders {', '.join(names[:SHOWN])} look like splits, not like classes. Name them "
            f"train, val and test, or give one of them: {key}={deep[0]}"
        )
    return {"train": root}


def split_of(name: str) -> str | None:
    """The split that a folder's name means, in whatever case and with whatever around: Training, test_set, val2017."""
    plain = re.sub(r"[\s_\-.]+", "", name.lower())
    for text in (plain, AROUND.sub("", plain), AROUND.sub("", AROUND.sub("", plain))):
        for split, allowed in SPLIT_NAMES.items():
            if text in allowed:
                return split
    return None


def looks_like_a_split(name: str) -> bool:
    """Whether a name is that of a fold, or has that of a split in it."""
    words = re.split(r"[\s_\-.]+", name.lower())
    known = {word for allowed in SPLIT_NAMES.values() for word in allowed}
    return bool(FOLD.fullmatch("".join(words))) or any(word in known for word in words)


def layout_notes(root: Path, key: str) -> tuple[str, ...]:
    """A line where every folder has sub-folders of the same names, which may be the classes that are meant."""
    names = {folder: {one.name for one in class_folders(folder)} for folder in class_folders(root)}
    shared = set.intersection(*names.values()) if names else set()
    if len(names) < 2 or len(shared) < 2:
        return ()
    listed = ", ".join(sorted(shared)[:SHOWN])
    return (
        f"each of the classes {', '.join(folder.name for folder in list(names)[:SHOWN])} has sub-folders {listed}: if "
        f"those are the classes, give one folder above them, such as {key}={next(iter(names))}",
    )


def class_folders(folder: Path) -> list[Path]:
    """Sub-folders that are not hidden, in order."""
    with os.scandir(folder) as entries:
        found = [folder / one.name for one in entries if one.is_dir(follow_symlinks=False) or one.is_symlink()]
    return [one for one in sorted(found) if not is_hidden(one.name) and one.is_dir()]


def path_order(path: Path) -> list[str]:
    """What paths are sorted by, as they would be by themselves, and in a tenth of the time."""
    return os.path.normcase(path).split(os.sep)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's samples by its name."""
    return name.startswith(".") or name in NO_CLASS


def class_listings(folder: Path, extensions: Collection[str], origin: str, noun: str) -> dict[str, Listing]:
    """What is in each class folder; GraftError that names `origin` for a class without a file that is read."""
    listings = {one.name: listing_of(one, extensions) for one in class_folders(folder)}
    for name, listing in listings.items():
        if not listing.files:
            found = [f"{number:,} {reason}" for reason, number in listing.left_out.items()]
            found += [f"{place}: {problem}" for place, problem in listing.unread[:1]]
            beside = f", but {', '.join(found)}" if found else ""
            raise GraftError(
                f"{origin}: no {noun} in {folder / name}{beside}. "
                f"Read are {shortened(extensions)}; put some there or remove the folder."
            )
    return listings


def shortened(extensions: Collection[str]) -> str:
    """Endings for a message."""
    usual = [one for one in (".jpg", ".jpeg", ".png", ".tif", ".webp", ".bmp", ".gif") if one in extensions]
    return ", ".join(usual) + " and more" if len(extensions) > len(usual) + 10 else ", ".join(sorted(extensions))


def beside_classes(root: Path, folders: Collection[Path], extensions: Collection[str]) -> Counter[str]:
    """Files that lie beside the class folders of splits, or beside the splits themselves."""
    counts: Counter[str] = Counter()
    for folder in {root, *folders}:
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                if folder == root and root not in folders and path not in folders:
                    counts[f"files in {path.name}, which is no split"] += sum(1 for _ in walk(path))
                elif is_hidden(path.name):
                    counts["hidden files"] += sum(1 for _ in walk(path))
            elif is_hidden(path.name):
                counts["hidden files"] += 1
            elif path.suffix.lower() in extensions:
                counts["files beside the folders of classes"] += 1
            else:
                counts[ending_of(path)] += 1
    return counts


def listing_of(folder: Path, extensions: Collection[str]) -> Listing:
    """Files of a folder and of those in it, links followed, in a fixed order."""
    listing = Listing()
    above = len(folder.parts)
    for path in sorted(walk(folder, extensions), key=path_order):
        if any(is_hidden(name) for name in path.parts[above:]):
            listing.left_out["hidden files"] += 1
        elif path.suffix.lower() not in extensions:
            listing.left_out[ending_of(path)] += 1
        elif problem := file_problem(path):
            listing.unread.append((str(path), problem))
        else:
            listing.files.append(path)
    return listing


def walk(folder: Path, extensions: Collection[str] = ()) -> Iterator[Path]:
    """All that is no folder below a folder, and folders that are called like a file and hold none."""
    seen = set()
    for place, names, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        above = Path(place)
        if above != folder and not names and not files and above.suffix.lower() in extensions:
            yield above
        yield from (above / name for name in files)


def file_name(file: Path | bytes) -> str:
    """What messages call a file, or what a file holds."""
    return f"A file of {len(file):,} bytes" if isinstance(file, bytes) else str(file)


def file_problem(path: Path) -> str:
    """Why what a path names cannot be opened as a file; empty where it can. Opening a pipe would wait forever."""
    try:
        if path.is_file():
            return ""
        if path.is_dir():
            return "it is a folder"
        if path.exists():
            return "it is no ordinary file"
        return (
            f"it is a link to {os.readlink(path)}, which is not there" if path.is_symlink() else "there is no such file"
        )
    except OSError as error:
        return f"its name is no path ({error.strerror})"
    except ValueError as error:
        return f"its name is no path ({first_line(error)})"


def shown(path: object) -> str:
    """A path as a message shows it, which may be any text of a table."""
    text = str(path)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def ending_of(path: Path) -> str:
    """The reason for which a file of another kind is left out."""
    return f"{path.suffix.lower()} files" if path.suffix else "files without an ending"
