"""Pretrained weights into a backbone: ImageNet, a Python package that carries a file, or a file of any origin.

Files are read without running code in them (weights_only) and matched by name, whatever prefix their writer put in
front; where a file has other names, by order, if every shape agrees.
"""

import pickle
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from graft.backbones.base import Backbone, linear_from
from graft.errors import GraftError, first_line
from graft.weights.ctranslate2 import is_ctranslate2, read_ctranslate2
from graft.weights.files import damage_of, packaged, weights_file
from graft.weights.parts import joined, parts_of

COUNTER = "num_batches_tracked"  # BatchNorm's step counter: old files lack it, and nothing depends on it


@dataclass
class LoadReport:
    """What became of a file's tensors; names are those of the network."""

    source: str
    matched: int
    total: int  # tensors of the network, BatchNorm's step counters apart
    missing: list[str] = field(default_factory=list)  # stayed random
    unexpected: list[str] = field(default_factory=list)  # in the file only
    adapted: list[str] = field(default_factory=list)  # resized or renamed


PICKLED = (b"PK", b"\x80")  # how a file of torch.save begins, the older form too


def load_weights(backbone: Backbone, weights: str) -> LoadReport:
    """Load `imagenet`, `pretrained`, `pip:<package>` or a file into the backbone, with normalisation and head.

    Raises GraftError where the file is missing or unreadable, or not one tensor fits.
    """
    if weights == "pretrained" and backbone.parts:
        return load_parts(backbone)
    if weights == "imagenet":
        source, content = backbone.imagenet()
    elif weights == "pretrained":
        source, content = backbone.own_weights()
    elif parts := parts_of(weights):
        source, content = weights, read_ctranslate2(joined(parts, weights), weights)
    else:
        source, content = weights, read_tensors(weights_file(weights))
    return load_tensors(backbone, content, source)


def load_parts(backbone: Backbone) -> LoadReport:
    """Load what `backbone.parts.<part>.weights` names into each part of a fusion that has some."""
    found = {name: load_weights(backbone.parts[name], own) for name, own in backbone.part_weights.items() if own}
    backbone.weights_loaded()
    listed = {
        of: [f"{name}: {text}" for name, one in found.items() for text in getattr(one, of)]
        for of in ("missing", "unexpected", "adapted")
    }
    return LoadReport(
        source="; ".join(f"{name}: {one.source}" for name, one in found.items()),
        matched=sum(one.matched for one in found.values()),
        total=sum(one.total for one in found.values()),
        **listed,
    )


def load_tensors(backbone: Backbone, content: dict[str, Any], source: str) -> LoadReport:
    """Load a file's content, which may hold its tensors at any depth and under any prefix."""
    network = backbone.network.state_dict()
    tensors, prefix = find_tensors(content, network)
    inside = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    try:
        converted = backbone.convert(inside)
    except GraftError:
        raise
    except Exception:  # a conversion that expects another network's names; the match below says what is wrong
        converted = inside

    pretrained_head, head_names = backbone.build_pretrained_head(converted)
    adapted = [
        f"{name}: {_shape(inside[name])} -> {_shape(value)}"
        for name, value in converted.items()
        if name in inside and name in network and inside[name].shape != value.shape
    ]
    found, folded = match_by_name(converted, network, backbone)
    if any(name not in found for name in _counted(network)) and not backbone.named_inputs:
        renamed = match_by_order(inside, network, backbone)
        if renamed is not None:
            found, folded, pretrained_head, head_names = renamed
            adapted = [f"all {len(found)} tensors matched by order: the file has other names"]
            converted = {}
    if not found:
        raise GraftError(
            f"backbone.weights={source}: no tensor fits {backbone.name}. The file begins with "
            f"{_some(tensors)}; the network with {_some(network)}. Choose the backbone that the file was made for."
        )

    check_finite(source, backbone, found, pretrained_head)
    backbone.network.load_state_dict({**network, **found})
    backbone.set_pretrained_head(pretrained_head)
    own = prefix.removesuffix("network.")  # of a file written by Graft
    buffers = dict(backbone.named_buffers())  # going through the network for every key would take seconds
    beside = {key: key.removeprefix(own) for key in tensors if key.removeprefix(own) in buffers}
    backbone.set_normalisation_of({name: tensors[key] for key, name in beside.items()})
    outside = [key for key in tensors if not key.startswith(prefix) and key not in beside]
    return LoadReport(
        source=source,
        matched=len(_counted(found)),
        total=len(_counted(network)),
        missing=[
            *(_explain(name, value, converted) for name, value in _counted(network).items() if name not in found),
            *backbone.inputs_missing_in(inside),
        ],
        unexpected=[
            *outside,
            *(
                name
                for name in _counted(converted)
                if name not in network and name not in head_names and not name.startswith(backbone.left_out)
            ),
        ],
        adapted=adapted + folded,
    )


def check_finite(source: str, backbone: Backbone, found: dict[str, Tensor], pretrained_head: nn.Module | None) -> None:
    """Raise GraftError for parameters that are NaN or infinite, and for buffers with NaN: masks may be infinite."""
    parameters = {name for name, _ in backbone.network.named_parameters(remove_duplicate=False)}
    heads = (
        {f"classifier.{name}": value.detach() for name, value in pretrained_head.named_parameters()}
        if pretrained_head
        else {}
    )
    for name, value in {**found, **heads}.items():
        if not value.is_floating_point():
            continue
        bad = ~value.isfinite() if name in parameters or name in heads else value.isnan()
        if count := int(bad.sum()):
            raise GraftError(
                f"backbone.weights={source}: tensor {name} holds NaN or infinite values ({count:,} of "
                f"{value.numel():,}). The training that wrote it has diverged, or the file is damaged: take an earlier "
                "checkpoint, or other weights."
            )


# Matching


def find_tensors(content: dict[str, Any], network: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The tensors in a file that fit the network best, and the prefix in front of its names there.

    A checkpoint may hold several sets (weights, averages, optimizer state); of equally good ones the first counts.
    """
    candidates = list(tensor_dicts(content)) or [{}]
    scored = [(prefix_and_hits(tensors, network), tensors) for tensors in candidates]
    (prefix, _), tensors = max(scored, key=lambda scored: (scored[0][1], len(scored[1]) if not scored[0][1] else 0))
    return tensors, prefix


def tensor_dicts(content: Any, depth: int = 3) -> Iterator[dict[str, Tensor]]:
    """Every dict of tensors in nested containers, outermost first; torch.compile's mark is taken off the names."""
    if not isinstance(content, dict):
        return
    tensors = {str(k).replace("_orig_mod.", ""): v for k, v in content.items() if isinstance(v, Tensor)}
    if tensors:
        yield tensors
    if depth:
        for value in content.values():
            yield from tensor_dicts(value, depth - 1)


def prefix_and_hits(tensors: dict[str, Tensor], network: dict[str, Tensor]) -> tuple[str, int]:
    """What stands in front of the network's names (`module.`, `backbone.network.`, nothing), and how many fit there."""
    hits: Counter[str] = Counter()
    for key, value in _counted(tensors).items():
        parts = key.split(".")
        for start in range(len(parts)):
            name = ".".join(parts[start:])
            if name in network and network[name].shape == value.shape:
                hits[key.removesuffix(name)] += 1
    return hits.most_common(1)[0] if hits else ("", 0)


def match_by_name(
    tensors: dict[str, Tensor], network: dict[str, Tensor], backbone: Backbone
) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors whose name and shape fit, and what had to be folded for the number of channels."""
    found, folded = {}, []
    for name, tensor in tensors.items():
        if name not in network:
            continue
        value = backbone.fit_input_layer(name, tensor)
        if value.shape == network[name].shape:
            found[name] = value
            if value.shape != tensor.shape:
                folded.append(f"{name}: {tensor.shape[1]} -> {value.shape[1]} channels")
    return found, folded


def match_by_order(
    tensors: dict[str, Tensor], network: dict[str, Tensor], backbone: Backbone
) -> tuple[dict[str, Tensor], list[str], nn.Module | None, set[str]] | None:
    """The file's tensors one by one, where every shape agrees; a linear head may follow. None where they do not fit."""
    names, values = list(_counted(network)), list(_counted(tensors).values())
    head = values[len(names) :]
    if len(values) < len(names) or len(head) > 2:
        return None
    renamed = dict(zip(names, values, strict=False))
    found, folded = match_by_name(renamed, network, backbone)
    if len(found) < len(names):
        return None
    fits = len(head) == 2 and head[0].ndim == 2 and head[0].shape == (len(head[1]), backbone.feature_size)
    return found, folded, linear_from(*head) if fits else None, set(list(_counted(tensors))[len(names) :])


def _counted(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(COUNTER)}


def _shape(tensor: Tensor) -> str:
    return "x".join(str(n) for n in tensor.shape)


def _explain(name: str, value: Tensor, file: dict[str, Tensor]) -> str:
    return f"{name} (file {_shape(file[name])}, network {_shape(value)})" if name in file else name


def _some(tensors: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {_shape(value)}" for name, value in list(tensors.items())[:3]) or "no tensors"


# Files


def read_tensors(file: Path) -> dict[str, Any]:
    """A file's content, without running any code in it. Raises GraftError where it is not a file of weights."""
    try:
        if is_safetensors(file):
            return load_file(file)
        if file.stat().st_size == 0:
            raise EOFError("the file is empty")
        with file.open("rb") as opened:
            start = opened.read(100)
        if is_ctranslate2(start):
            return dict(read_ctranslate2(bytearray(file.read_bytes()), str(file)))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # what it cannot read, it refuses below
            content = torch.load(file, map_location="cpu", weights_only=True)
        if damaged := damage_of(file):
            raise ValueError(f"damaged: the checksum of {damaged} is another one")
    except pickle.UnpicklingError as error:
        with open(file, "rb") as opened:
            start = opened.read(60)
        if not start.startswith(PICKLED):
            raise GraftError(
                f"{file} is not a file of weights: torch.save writes a zip file or a pickle, and it begins with "
                f"{start.splitlines()[0] if start else start!r}. A saved web page or a pointer of Git LFS looks so: "
                "download the file itself, or name another: backbone.weights=<file>"
            ) from error
        raise GraftError(
            f"{file} cannot be read safely: it holds Python objects beside tensors ({first_line(error)}). "
            "Load it once where you trust it and save its state dict: torch.save(model.state_dict(), 'weights.pt')"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, BadZipFile, SafetensorError) as error:
        raise GraftError(f"{file} is not a readable file of weights ({first_line(error)}).") from error
    if not isinstance(content, dict):
        raise GraftError(f"{file} holds a {type(content).__name__}; a dict of tensors is needed: model.state_dict().")
    return content


def is_safetensors(file: Path) -> bool:
    """Whether a file begins as safetensors do: the header's length in 8 bytes, then the header, a JSON object."""
    with file.open("rb") as opened:
        return opened.read(9)[8:] == b"{"


def not_downloaded(name: str, file: Path, url: str, error: Exception) -> str:
    """What to do on a machine that cannot download."""
    return (
        f"backbone.weights=imagenet: the weights of {name} are not on this machine and could not be downloaded "
        f"({first_line(error)}).\nPut the file {file.name} into {file.parent} (from {url}).\n{packaged()}"
    )
