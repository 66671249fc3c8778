"""A run's `model/` folder: weights.safetensors, and model.json, which says what they are the weights of."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graft.backbones.base import COLUMNS, NETWORK, TOKENIZER, VOCABULARY, Backbone
from graft.backbones.vocabulary import Vocabulary
from graft.errors import GraftError
from graft.files import write_whole, written_whole
from graft.inputs.columns import Columns
from graft.model.place import DESCRIPTION
from graft.training.source_encoder import SOURCE

WEIGHTS = "weights.safetensors"
NEIGHBOURS, CARD = "neighbours.safetensors", "README.md"
FORMAT = 1
ALIASES = "aliases"  # in the metadata of the weights
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
    task_state: Mapping[str, Any]  # what the task took from the training labels
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
    wrapped: Mapping[str, Any] | None = None  # of a plain network, what made it a backbone (graft.backbones.contract)
    temperature: float | None = None  # by which logits are divided for the confidence; None: it is not calibrated
    unusual: Mapping[str, Any] | None = None  # thresholds of scores, see graft.model.unusual
    resized: Mapping[str, Sequence[int]] | None = None  # shapes of the backbone's tensors that pruning made smaller
    format: int = FORMAT


def write(folder: Path, description: Description, network: nn.Module) -> None:
    """Put the weights and then the description into a folder: with it the folder is whole."""
    write_weights(network, folder / WEIGHTS)
    write_whole(folder / DESCRIPTION, json.dumps(asdict(description), indent=1, ensure_ascii=False))


OF_SOURCE = f"backbone.{SOURCE}."  # an encoder that the target does not use


def write_weights(network: nn.Module, file: Path) -> None:
    """A network's weights, each contiguous and tied ones once; the metadata hold the names that share them."""
    from safetensors.torch import save

    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, tensor in network.state_dict().items():
        if name.startswith(OF_SOURCE):
            continue
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in seen:
            aliases[name] = seen[place]
            continue
        seen[place] = name
        kept[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    with written_whole(file) as whole:
        whole.write(save(kept, {"format": "pt", ALIASES: json.dumps(aliases)}))


def read_weights(file: Path) -> dict[str, Tensor]:
    """What `write_weights` wrote, under every name."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as content:
        tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no mapping)
        aliases = json.loads((content.metadata() or {}).get(ALIASES, "{}"))
    return tensors | {name: tensors[kept] for name, kept in aliases.items()}


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
        part, _, kind = name.rpartition("/")
        if kind not in (*readers, *FOLDERS) or not (part == "" or part.isidentifier()) or not (folder / name).exists():
            raise GraftError(f"{folder / DESCRIPTION}: `files.{argument}={name}` is no file of this model's.")
        path = folder / name
        arguments[argument] = readers[kind](path.read_text("utf-8")) if kind in readers else str(path)
    return arguments


def with_arguments(settings: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A backbone's keys with further ones, those of a part by `parts.<part>.<key>`."""
    found = dict(settings)
    for key, value in arguments.items():
        name, _, rest = key.partition(".")
        found[name] = with_arguments(found[name], {rest: value}) if rest else value
    return found


def names_in(folder: Path) -> list[str]:
    """Every file of a model folder, by its path from the folder around it."""
    return sorted(path.relative_to(folder.parent).as_posix() for path in folder.rglob("*") if path.is_file())


def network_of(backbone: Backbone, head: nn.Module) -> nn.ModuleDict:
    """Backbone and head under the names that they have in the file of weights."""
    return nn.ModuleDict({"backbone": backbone, "head": head})
