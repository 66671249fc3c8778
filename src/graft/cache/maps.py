"""Maps of images of different sizes in a file, written once from batches, read by index into padded ones."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graft.backbones.outputs import Maps
from graft.cache.rows import MappedFile, dtype_said, name_of
from graft.data.boxes import padded_sizes

VALUES, LAYOUT, META = "maps.bin", "layout.npz", "maps.json"


class MappedMaps:
    """Maps and features of images in a file; indexing by `(B,)` gives copies as one batch, padded to the largest.

    Raises OSError or ValueError where the file is not whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        meta = json.loads((self.folder / META).read_text())
        self._channels: dict[str, int] = meta["channels"]  # by stage
        dtype = dtype_said(self.folder / META, meta["dtype"])
        with np.load(self.folder / LAYOUT) as layout:
            self._starts, self._ends = (torch.from_numpy(layout[name]) for name in ("starts", "ends"))  # (N,) numbers
            self._sizes = torch.from_numpy(layout["sizes"])  # (N, 2) of the images without padding
            self._shapes = torch.from_numpy(layout["shapes"])  # (N, S, 2) heights and widths of the maps
        self._file = MappedFile(self.folder / VALUES)
        if len(self._file.bytes) != self._ends.max() * dtype.itemsize:
            raise ValueError(f"{self.folder / VALUES} has another size than {LAYOUT} says")
        self._values = self._file.bytes.view(dtype)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, indices: Tensor) -> Maps:
        return Maps.join([self._read(index) for index in indices.tolist()])

    def _read(self, index: int) -> Maps:
        """Of one image, as a batch of one."""
        values = self._values[self._starts[index] : self._ends[index]].clone()
        self._file.count(1, values.nbytes)
        shapes = [
            (1, channels, *shape)
            for channels, shape in zip(self._channels.values(), self._shapes[index].tolist(), strict=True)
        ]
        numbers = [math.prod(shape) for shape in shapes]
        *maps, features = values.split([*numbers, len(values) - sum(numbers)])
        size = self._sizes[index]
        height, width = padded_sizes(size).tolist()
        return Maps(
            {stage: one.view(shape) for stage, one, shape in zip(self._channels, maps, shapes, strict=True)},
            (height, width),
            features[None],
            size[None],
        )

    def __reduce__(self) -> tuple[type["MappedMaps"], tuple[Path]]:
        """Worker processes map the file again."""
        return MappedMaps, (self.folder,)


class MapsWriter:
    """Writes maps into a folder, image by image, as exactly as the network gives them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._meta: dict[str, Any] = {}
        self._layout: dict[int, tuple[int, int, Tensor, list[tuple[int, ...]]]] = {}
        self._written = 0

    def __enter__(self) -> "MapsWriter":
        self._file = (self.folder / VALUES).open("wb")
        return self

    def append(self, batch: Iterable[tuple[Tensor, Maps]], indices: Tensor) -> None:
        """Write images of some sizes, each with their places in the batch, whose images have `indices` `(B,)`."""
        for places, maps in batch:
            assert maps.features is not None
            assert maps.sizes is not None
            values = [*maps.values.values(), maps.features]
            rows = torch.cat([one.detach().cpu().flatten(1) for one in values], dim=1)
            rows.view(torch.uint8).numpy().tofile(self._file)
            shapes = [tuple(one.shape[-2:]) for one in maps.values.values()]
            channels = {stage: one.shape[1] for stage, one in maps.values.items()}
            self._meta = {"dtype": name_of(rows.dtype), "channels": channels}
            for index, size in zip(indices[places].tolist(), maps.sizes.cpu(), strict=True):
                end = self._written + rows.shape[1]
                self._layout[index] = (self._written, end, size, shapes)
                self._written = end

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if not self._layout:
            return
        starts, ends, sizes, shapes = zip(*(self._layout[index] for index in sorted(self._layout)), strict=True)
        np.savez(
            self.folder / LAYOUT,
            starts=np.array(starts),
            ends=np.array(ends),
            sizes=torch.stack(sizes).numpy(),
            shapes=np.array(shapes),
        )
        (self.folder / META).write_text(json.dumps(self._meta))
