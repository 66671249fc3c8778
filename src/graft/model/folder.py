"""A run's `model/` folder: weights.safetensors, and model.json, which says what they are the weights of."""

import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from graft.backbones.base import COLUMNS, NETWORK, TOKENIZER, VOCABULARY, Backbone
from graft.backbones.vocabulary import Vocabulary
from graft.errors import GraftError
from graft.inputs.columns import Columns

MODEL, DESCRIPTION, WEIGHTS = "model", "model.json", "weights.safetensors"
FORMAT = 1
PACKAGES = ("torch", "torchvision", "timm", "transformers", "numpy", "pillow")
FOLDERS = (NETWORK, TOKENIZER)


@dataclass(frozen=True)
class Description:
    """What model.json holds: plain values that say how to build the network and how to read what it predicts on."""

    name: str  # of the run
    modality: str
    backbone: Mapping[str, Any]  # the constructor's arguments; what is no plain value is in `files`
    files: Mapping[str, str]  # argument of the backbone -> its file or folder
    head: Mapping[str, Any]
    strategy: Mapping[str, Any] | None  # where what it added to the network stays there, such as adapters
    task: Mapping[str, Any]
    task_state: Mapping[str, float]  # what the task took from the training labels
    classes: Sequence[str] | None
    input: str  # what the network wants to see, for people
    reading: Mapping[str, Any]  # how a new sample is read, as those of the run were
    precision: str  # that the run computed with
    dtype: str  # of the weights
    data: Mapping[str, Any]  # name and fingerprint of the target
    metrics: Mapping[str, float]
    selection: Mapping[str, Any]
    allow: Sequence[str]  # packages whose code the network needs
    versions: Mapping[str, str]
    format: int = FORMAT


def write(folder: Path, description: Description, network: nn.Module, files: Sequence[str] = ()) -> None:
    """Put the weights and then the description into a folder that holds `files` already: with it the folder is whole.

    Tied weights are kept once, with the names that share them in the file's metadata.
    """
    from safetensors.torch import save_model

    save_model(network, str(folder / WEIGHTS), {"format": "pt"})
    unfinished = folder / f"{DESCRIPTION}.unfinished"
    with unfinished.open("w", encoding="utf-8") as file:
        json.dump(asdict(description), file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(folder / DESCRIPTION)


def read(folder: Path) -> Description:
    """The description of a model folder. Raises GraftError for one that cannot be read or that a newer Graft wrote."""
    file = folder / DESCRIPTION
    try:
        content = json.loads(file.read_text("utf-8"))
        if (found := content.get("format")) != FORMAT:
            raise GraftError(f"{file} is of a newer Graft (format {found}, this one reads {FORMAT}): update Graft.")
        return Description(**content)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise GraftError(
            f"{file} cannot be read ({error}). Take the whole folder from a copy, or train again."
        ) from None


def arguments_in(folder: Path, files: Mapping[str, str]) -> dict[str, Any]:
    """The backbone's arguments that files stand for. Raises GraftError for a file that no backbone writes, or lacks."""
    readers = {
        COLUMNS: Columns.from_json,
        VOCABULARY: lambda text: Vocabulary.of_words(json.loads(text)),
    }
    arguments: dict[str, Any] = {}
    for argument, name in files.items():
        if name not in (*readers, *FOLDERS) or not (folder / name).exists():
            raise GraftError(f"{folder / DESCRIPTION}: `files.{argument}={name}` is no file of this model's.")
        path = folder / name
        arguments[argument] = readers[name](path.read_text("utf-8")) if name in readers else str(path)
    return arguments


def names_in(folder: Path) -> list[str]:
    """Every file of a model folder, by its path from the folder around it."""
    return sorted(path.relative_to(folder.parent).as_posix() for path in folder.rglob("*") if path.is_file())


def versions() -> dict[str, str]:
    """Versions of the packages that the network is made of."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def network_of(backbone: Backbone, head: nn.Module) -> nn.ModuleDict:
    """Backbone and head under the names that they have in the file of weights."""
    return nn.ModuleDict({"backbone": backbone, "head": head})
