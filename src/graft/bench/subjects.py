"""What a bench compares: runs and exported files, with what is known of them before they run."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graft.errors import GraftError
from graft.export.samples import score_of_run
from graft.export.session import metadata_of, session
from graft.export.torch_file import read
from graft.export.write import MB, size_of
from graft.files import user_path
from graft.model import folder as folders
from graft.model.place import folder_of

FILES = (".onnx", ".pt2")


@dataclass(frozen=True)
class Subject:
    """A network: what it is called, where it is, what computes it, its size, and its test score where one is known."""

    name: str
    place: Path
    kind: str
    size_mb: float
    score: dict[str, Any] | None  # metric, value, n, interval


def subject_of(word: str) -> Subject:
    """What a path stands for. Raises GraftError for one without a network."""
    place = user_path(word)
    if place.suffix not in FILES:
        folder = folder_of(place)
        name = folders.read(folder).name
        return Subject(name, folder, "PyTorch", size_of(folder) / MB, score_of_run(folder.parent))
    if not place.is_file():
        raise GraftError(f"{place}: there is no such file. Write one: graft export run=<folder> format=onnx")
    kind, metadata = described(place)
    if "inputs" not in metadata:
        raise GraftError(f"{place} was not written by graft export, and does not say what its inputs are.")
    return Subject(place.name, place, kind, size_of(place) / MB, metadata.get("score"))


def described(file: Path) -> tuple[str, dict[str, Any]]:
    """What computes a file, and its metadata; GraftError where it cannot be read."""
    try:
        if file.suffix == ".pt2":
            return "torch.export", read(file)[1]
        metadata = metadata_of(session(file, threads=1))
    except ImportError as error:
        raise GraftError(f"{file} needs {error.name}. Install it: pip install '.[export]'") from None
    except Exception as error:  # a parser's own exceptions, of a file that somebody else wrote
        raise GraftError(f"{file} cannot be read: {error}") from None
    kind = metadata.get("int8")
    return (f"ONNX, int8 {kind['kind']}" if kind else "ONNX"), metadata


def subjects_of(words: Sequence[str]) -> list[Subject]:
    """All of them, called by their paths where names are the same; a path alone where it is given twice."""
    found = [subject_of(word) for word in dict.fromkeys(map(os.path.normpath, words))]
    names = [one.name for one in found]
    return [
        one if names.count(one.name) == 1 else Subject(str(one.place), one.place, one.kind, one.size_mb, one.score)
        for one in found
    ]
