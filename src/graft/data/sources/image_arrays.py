"""Images in an npz, as MedMNIST has them: grey or colour, bytes or numbers from 0 to 1."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from graft.data.domain import Split
from graft.data.readers.array_file import ArrayFile, Arrays, Found, hashes_of
from graft.errors import GraftError

CHANNELS = (1, 3, 4)
CHUNK = 256  # images that are converted at a time, to bound memory
ROUNDING = 1e-3  # by which a number from 0 to 1 may be off


class ImageArrays(ArrayFile):
    """Images `(N, H, W)` or `(N, H, W, C)` with a class each, kept as uint8 `(N, C, H, W)`."""

    word = "images"

    def __init__(self, file: str, images: str = "images", **settings: Any) -> None:
        super().__init__(file, images, **settings)

    def samples_of(self, arrays: Arrays, prefix: str) -> Found:
        """Images as uint8; those with values that are none of an image are bad."""
        name = prefix + self.samples
        images = arrays[name]
        form = images.shape[3] if images.ndim == 4 else 1
        if images.ndim not in (3, 4) or form not in CHANNELS or 0 in images.shape[1:] or images.dtype.kind not in "uif":
            raise GraftError(
                f"{self.key}.file={self.file}: {name} has the shape {images.shape} and the type {images.dtype}; images "
                "are numbers of the shape (N, H, W) or (N, H, W, C) with 1, 3 or 4 channels. "
                f"Name another array: {self.key}.{self.word}=<name without train_>"
            )
        pixels, bad = (images, {}) if images.dtype == np.uint8 else as_bytes(images)
        pixels = pixels[:, None] if pixels.ndim == 3 else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        return Found(torch.from_numpy(pixels), hashes_of(pixels), bad)

    def described(self, splits: Mapping[str, Split]) -> dict[str, Any]:
        """Their channels, which are the same in every split."""
        channels = {name: split.inputs.shape[1] for name, split in splits.items()}
        if len(set(channels.values())) > 1:
            listed = ", ".join(f"{number} in {name}" for name, number in channels.items())
            raise GraftError(
                f"{self.key}.file={self.file}: images have different numbers of channels, {listed}. "
                "Write all splits with the same number."
            )
        return {"channels": channels["train"]}


def as_bytes(images: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """Images as uint8, from numbers in [0, 1] or whole ones in 0..255, and by index those that hold others."""
    floats = images.dtype.kind == "f"
    limit, slack = (1, ROUNDING) if floats else (255, 0)
    advice = "images of floats lie in 0 to 1: divide by 255" if floats else "images of integers lie in 0 to 255"
    pixels, bad = np.empty(images.shape, dtype=np.uint8), {}
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        flat = chunk.reshape(len(chunk), -1)
        finite = np.isfinite(flat).all(axis=1)
        inside = (flat >= -slack).all(axis=1) & (flat <= limit + slack).all(axis=1)
        for index in np.flatnonzero(~(finite & inside)).tolist():
            values = f"values from {flat[index].min():g} to {flat[index].max():g}; {advice}"
            bad[start + index] = values if finite[index] else "a value is NaN or infinite"
        usable = np.where(np.isfinite(chunk), chunk, 0).clip(0, limit) if floats else chunk.clip(0, limit)
        pixels[start : start + len(chunk)] = (usable * 255).round() if floats else usable
    return pixels, bad
