"""A domain's samples written as tar shards, as WebDataset has them, from which training reads a stream."""

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from graft.data.readers.images import ImageFiles
from graft.data.readers.recordings import SoundFiles
from graft.data.readers.shards import CLASSES, INDICES, Place
from graft.data.readers.texts import Texts
from graft.data.samples import DomainData, LazyTensor, Split, generator, located
from graft.errors import GraftError

NAME = "{split}-{number:06d}.tar"
STEM = re.compile(r"[^\w-]+")  # of a file's name, what a key shall not have
LONGEST_STEM = 60


@dataclass(frozen=True)
class Written:
    """A shard: its name, its samples and bytes."""

    name: str
    samples: int
    size: int


def write_domain(data: DomainData, place: Place, limit: int, seed: int) -> Iterator[Written]:
    """Write all splits in shards of about `limit` bytes, training samples in a random order, then what indexes them.

    Raises GraftError for a place that is not empty, for labels that are no classes, and for what cannot be written.
    """
    splits: Mapping[str, Any] = {"train": data.train, "val": data.val, "test": data.test}
    if data.classes is None or any(
        not isinstance(one.labels, Tensor) or one.labels.ndim > 1 for one in splits.values()
    ):
        raise GraftError(f"{place.key}: shards hold one class a sample, and {data.name} has none.")
    if place.files.exists(place.path) and place.files.ls(place.path):
        raise GraftError(f"{place.key}={place.root}: it is not empty. Name a new folder, or empty it.")
    sizes: dict[str, int] = {}
    try:
        place.files.makedirs(place.path, exist_ok=True)
        for split, samples in splits.items():
            order: Sequence[int] = range(len(samples))
            if split == "train":
                order = torch.randperm(len(samples), generator=generator(seed, "shards")).tolist()
            for number, group in enumerate(groups(entries(samples, order, data.classes), limit)):
                name = NAME.format(split=split, number=number)
                content = tar_of(group)
                place.files.pipe_file(f"{place.path}/{name}", content)
                sizes[name] = len(group)
                yield Written(name, len(group), len(content))
        place.files.pipe_file(f"{place.path}/{CLASSES}", "".join(f"{one}\n" for one in data.classes).encode())
        place.files.pipe_file(f"{place.path}/{INDICES[0]}", json.dumps(sizes, indent=1).encode())
    except OSError as error:
        raise GraftError(f"{place.key}={place.root} cannot be written: {error}.") from None


Files = tuple[str, Mapping[str, bytes]]  # a sample's key, and contents by ending


def entries(split: Split, order: Sequence[int], classes: Sequence[str]) -> Iterator[Files]:
    """Every sample's files, in an order."""
    for number, index in enumerate(order):
        ending, content, stem = stored(split, index)
        key = f"{number:08d}" + (f"_{STEM.sub('-', stem)[:LONGEST_STEM]}" if stem else "")
        yield key, {ending: content, "cls": classes[int(split.labels[index])].encode()}


def stored(split: Split, index: int) -> tuple[str, bytes, str]:
    """A sample's ending, its content as its file has it or as PNG, and its file's name."""
    inputs: Any = split.inputs.tensor if isinstance(split.inputs, LazyTensor) else split.inputs
    inputs, index = located(inputs, index)
    if isinstance(inputs, ImageFiles | SoundFiles) and isinstance(file := inputs.files[index], Path):
        return file.suffix.lower().lstrip("."), file.read_bytes(), file.stem
    if isinstance(inputs, Texts):
        return "txt", inputs[index].encode(), ""
    sample = inputs[index]
    if not isinstance(sample, Tensor) or sample.dtype != torch.uint8 or sample.ndim != 3 or len(sample) not in (1, 3):
        raise GraftError("graft shards: it writes image and sound files, texts, and images of 1 or 3 channels.")
    content = io.BytesIO()
    Image.fromarray(sample[0].numpy() if len(sample) == 1 else sample.permute(1, 2, 0).numpy()).save(content, "png")
    return "png", content.getvalue(), ""


def groups(samples: Iterator[Files], limit: int) -> Iterator[list[Files]]:
    """Samples in groups of about `limit` bytes, of which each holds one at least."""
    group: list[Files] = []
    size = 0
    for sample in samples:
        more = sum(BLOCKSIZE * (1 - (-len(content) // BLOCKSIZE)) for content in sample[1].values())  # with its header
        if group and size + more > limit:
            yield group
            group, size = [], 0
        group.append(sample)
        size += more
    if group:
        yield group


def tar_of(samples: Sequence[Files]) -> bytes:
    """A tar file of samples, the same bytes for the same samples."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for key, files in samples:
            for ending, data in files.items():
                header = tarfile.TarInfo(f"{key}.{ending}")
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    return content.getvalue()
