"""Images of different sizes in a file, read by index without coming into memory as a whole."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from graft.cache.rows import MappedFile

PIXELS, SHAPES = "images.bin", "shapes.npy"


class MappedImages:
    """Images uint8 `(C, H, W)` in a file; indexing by `(B,)` gives a list of them, which are only to be read.

    Raises OSError or ValueError where the file is not whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._shapes = torch.from_numpy(np.load(self.folder / SHAPES))  # (N, 3): height, width, channels
        sizes = self._shapes.prod(1)
        self._ends = sizes.cumsum(0)
        self._starts = self._ends - sizes
        self._file = MappedFile(self.folder / PIXELS)
        if len(self._file.bytes) != sizes.sum():
            raise ValueError(f"{self.folder / PIXELS} has another size than {SHAPES} says")

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, indices: Tensor) -> list[Tensor]:
        places = zip(*(part[indices].tolist() for part in (self._starts, self._ends, self._shapes)), strict=True)
        images = [self._file.bytes.as_strided((c, h, w), (1, w * c, c), start) for start, end, (h, w, c) in places]
        # Counted before they are read: what is given back now comes again from the file where a view is still in use.
        self._file.count(len(images), max(image.numel() for image in images))
        return images

    def __reduce__(self) -> tuple[type["MappedImages"], tuple[Path]]:
        """Worker processes map the file again."""
        return MappedImages, (self.folder,)


def write_images(folder: Path, images: Iterable[Tensor]) -> None:
    """Write images `(C, H, W)` one after the other, colours of a pixel side by side as resizing likes them."""
    shapes = []
    with (folder / PIXELS).open("wb") as file:
        for image in images:
            pixels = image.permute(1, 2, 0).contiguous()
            pixels.numpy().tofile(file)
            shapes.append(pixels.shape)
    np.save(folder / SHAPES, np.array(shapes, dtype=np.int64))
