"""The images of a split, after the geometry that never changes: computed once and kept, in memory or on disk."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Subset

from graft.cache.disk import DiskCache, NoRoom
from graft.cache.images import MappedImages, write_images
from graft.cache.key import cache_key, code_used
from graft.cache.rows import MappedRows, write_rows
from graft.data.readers.images import ImageFiles
from graft.data.samples import LazyTensor, Split, located
from graft.data.threads import in_parts
from graft.inputs.base import Prepared
from graft.inputs.image.geometry import Geometry
from graft.notes import say_once

IN_MEMORY = 2**29  # bytes of a split that is resized at once; a larger one is resized batch by batch
CHUNK = 128  # images decoded or resized at a time, to bound memory
TOGETHER = 16  # of them that a thread takes
SAMPLE = 16  # images that tell how large all of them are
MANY = 1000  # images; decoding fewer takes no time worth a line
THREADS = min(8, os.cpu_count() or 1)


class LazyImages:
    """Images that are decoded and resized whenever they are asked for."""

    slow = True

    def __init__(self, inputs: Sequence[Tensor] | Subset, geometry: Geometry) -> None:
        self.inputs = inputs
        self.geometry = geometry

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, indices: Tensor) -> Tensor | list[Tensor]:
        return self.geometry.batch([self.read(index) for index in indices.tolist()])

    def read(self, index: int) -> Tensor:
        """One image `(C, H, W)`, not resized yet."""
        inputs, index = located(self.inputs, index)
        return inputs.read(index, self.geometry.shorter) if isinstance(inputs, ImageFiles) else inputs[index]

    def load(self, index: int) -> Tensor:
        """One image `(C, H, W)`."""
        return self.geometry(self.read(index))


class LazyResize:
    """Images in memory that are resized whenever they are asked for."""

    def __init__(self, images: Tensor, geometry: Geometry) -> None:
        self.images = images
        self.geometry = geometry

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: Tensor) -> Tensor:
        return self.geometry(self.images[indices])


def resized_images(split: Split, geometry: Geometry, cache: DiskCache | None) -> Prepared:
    """The split's images after the geometry; files are decoded into the cache, where there is one with room for them.

    Raises GraftError that names a broken file.
    """
    inputs = split.inputs.tensor if isinstance(split.inputs, LazyTensor) else split.inputs
    if isinstance(inputs, Tensor):
        return resize_in_memory(inputs, geometry)
    images = LazyImages(cast(Sequence[Tensor] | Subset, inputs), geometry)
    if cache is None:
        return images
    depends_on = {
        "split": split.fingerprint,
        "geometry": repr(geometry),
        "code": code_used(__name__, innermost(inputs)),
    }
    try:
        size = functools.partial(expected_bytes, images)
        make = functools.partial(decode_all, images)
        read: Callable[[Path], Prepared] = MappedImages if geometry.shape is None else MappedRows
        return cache.get(cache_key(depends_on), size, make, read)
    except (NoRoom, OSError) as error:
        say_once(f"Images are decoded anew in every epoch, because they cannot be kept: {error}.")
        return images


def innermost(inputs: Any) -> Any:
    """What a subset of a subset of a domain's inputs was taken from, of several sources the first one's."""
    return located(inputs, 0)[0]


def resize_in_memory(images: Tensor, geometry: Geometry) -> Tensor | LazyResize:
    """Images `(N, C, H, W)` resized at once, or batch by batch where that would take too much memory."""
    height, width = geometry.shape or images.shape[-2:]
    if len(images) * images.shape[1] * height * width > IN_MEMORY:
        return LazyResize(images, geometry)
    if geometry(images[:1]).is_set_to(images[:1]):
        return images  # nothing to do
    return torch.cat([geometry(chunk) for chunk in images.split(CHUNK)])


def expected_bytes(images: LazyImages) -> int:
    """What all images take, from a few of them: one where all get the same size."""
    number = 1 if images.geometry.shape else min(SAMPLE, len(images))
    sample = [images.load(i * len(images) // number).numel() for i in range(number)]
    return sum(sample) * len(images) // number


def decode_all(images: LazyImages, folder: Path) -> None:
    """Write all images into a folder, decoded by several threads."""
    if len(images) >= MANY:
        print(f"Decoding {len(images):,} images, kept in {folder.parent}", flush=True)
    with ThreadPoolExecutor(THREADS) as pool:
        if images.geometry.shape is None:
            write_images(folder, (image for chunk in decode_chunks(images, pool) for image in chunk))
        else:
            write_rows(folder, (torch.stack(chunk) for chunk in decode_chunks(images, pool)))


def decode_chunks(images: Any, pool: ThreadPoolExecutor) -> Iterator[list[Tensor]]:
    """All images, CHUNK at a time; a thread decodes TOGETHER of them."""
    for chunk in torch.arange(len(images)).split(CHUNK):
        yield in_parts(pool, lambda some: [*map(images.load, some)], chunk.tolist(), TOGETHER)
