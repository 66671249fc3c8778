"""Images in an npz, as MedMNIST has them: grey or colour, bytes or numbers from 0 to 1."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from graft.data.readers.array_file import ArrayFile, Arrays, Found, hashes_of
from graft.data.readers.labelled_images import SimilarImages
from graft.data.readers.looks import looks_of_arrays
from graft.data.readers.pixels import BYTES, LEAST_USED, ROUNDING, Range, checked_range, to_bytes
from graft.data.samples import Raw, Samples
from graft.errors import GraftError

CHUNK = 256  # images that are converted at a time, to bound memory


class ImageArrays(ArrayFile, SimilarImages):
    """Images `(N, H, W)` or `(N, H, W, C)` with labels, kept as uint8 `(N, C, H, W)`."""

    def __init__(
        self, file: str, images: str = "images", pixel_range: Sequence[float] | None = None, **settings: Any
    ) -> None:
        """`pixel_range` is `[black, white]`; null: 0 to 255, of floats 0 to 1."""
        super().__init__(file=file, samples=images, **settings)
        self.stated_range = pixel_range

    def read(self) -> Raw:
        """The images of every split, and which of them look alike."""
        self.hashes, self._groups = {}, None
        self._clipped: list[str] = []
        raw = super().read()
        return replace(raw, notes=(*raw.notes, *self._clipped))

    def samples_of(self, arrays: Arrays, prefix: str) -> Found:
        """Images as uint8; those with values that are none of an image are bad."""
        name = prefix + self.samples
        images = arrays[name]
        channels = images.shape[3] if images.ndim == 4 else 1
        if images.ndim not in (3, 4) or 0 in images.shape[1:] or images.dtype.kind not in "uifb":
            raise GraftError(
                f"{self.key}.file={self.file}: {name} has the shape {images.shape} and the type {images.dtype}; images "
                "are numbers of the shape (N, H, W) or (N, H, W, C). "
                f"Name another array: {self.key}.{self.noun}=<name without train_>"
            )
        if channels > 4 and images.shape[1] <= 4:
            raise GraftError(
                f"{self.key}.file={self.file}: {name} has the shape {images.shape}, which is {channels} channels of "
                f"{images.shape[1]} x {images.shape[2]} pixels. Images are (N, H, W) or (N, H, W, C): the channels "
                f"come last. Transpose the array, or name another: {self.key}.{self.noun}=<name without train_>"
            )
        pixels, bad = self._as_bytes(images, name)
        pixels = pixels[:, None] if pixels.ndim == 3 else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        hashes = hashes_of(pixels)
        looks = looks_of_arrays(pixels, hashes, self.cache)
        self.hashes = {**self.hashes, **{look.digest: look.hash for look in looks}}
        return Found(torch.from_numpy(pixels), hashes, bad)

    def _as_bytes(self, images: np.ndarray, name: str) -> tuple[np.ndarray, dict[int, str]]:
        """Images as uint8, and by index what is wrong with those that cannot be used.

        Raises GraftError where most lie outside the range of their type and no range is stated.
        """
        stated = checked_range(self.stated_range, self.key)
        if images.dtype == np.uint8 and stated is None:
            return images, {}
        low, high = stated or ((0.0, 1.0) if images.dtype.kind in "fb" else (0.0, BYTES))
        slack = ROUNDING if images.dtype.kind == "f" else 0
        pixels = np.empty(images.shape, dtype=np.uint8)
        bad: dict[int, str] = {}
        outside: dict[int, tuple[float, float]] = {}
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            flat = chunk.reshape(len(chunk), -1)
            finite = np.isfinite(flat).all(axis=1)
            ends = np.where(finite, flat.min(axis=1), 0), np.where(finite, flat.max(axis=1), 0)
            bad |= {start + i: "a value is NaN or infinite" for i in np.flatnonzero(~finite).tolist()}
            beyond = (ends[0] < low - slack) | (ends[1] > high + slack)
            outside |= {start + i: (float(ends[0][i]), float(ends[1][i])) for i in np.flatnonzero(beyond).tolist()}
            usable = np.where(np.isfinite(chunk), chunk, low)
            pixels[start : start + len(chunk)] = to_bytes(usable, low, high)
        if not outside:
            self._check_used(images, name, low, high, stated)
            return pixels, bad
        least, most = min(one for one, _ in outside.values()), max(one for _, one in outside.values())
        number = f"{len(outside):,} images of {name}"
        if stated:
            given = f"{self.key}.pixel_range=[{low:g},{high:g}]"
            self._clipped.append(
                f"{number} have values outside {given} (from {least:g} to {most:g}), which are read as its ends"
            )
            return pixels, bad
        if len(outside) > len(images) / 2:
            raise GraftError(
                f"{self.key}.file={self.file}: {number} hold values from {least:g} to {most:g}, and their type, "
                f"{images.dtype}, does not tell which are black and white. State it: "
                f"'{self.key}.pixel_range=[{least:g},{most:g}]'"
            )
        kind = "floats lie in 0 to 1" if high == 1 else "integers lie in 0 to 255"
        advice = f"images of {kind}, or in a stated {self.key}.pixel_range"
        return pixels, bad | {i: f"values from {a:g} to {b:g}; {advice}" for i, (a, b) in outside.items()}

    def _check_used(self, images: np.ndarray, name: str, low: float, high: float, stated: Range | None) -> None:
        """Raise GraftError for floats or wide integers of which all are near black: their range is another one."""
        wide = images.dtype.kind == "f" or images.dtype.itemsize > 1
        most = float(np.nanmax(images)) if images.size and wide else high
        if stated is None and 0 < most < LEAST_USED * high:
            raise GraftError(
                f"{self.key}.file={self.file}: the images of {name} hold values from {float(np.nanmin(images)):g} to "
                f"{most:g}, and their type, {images.dtype}, does not tell which are black and white. State it: "
                f"'{self.key}.pixel_range=[0,{most:g}]'"
            )

    def reading(self) -> Mapping[str, Any]:
        """The range of values; channels are those of the arrays."""
        return {"pixel_range": checked_range(self.stated_range, self.key)}

    def encode(self, splits: Mapping[str, Samples]) -> tuple[dict[str, Samples], dict[str, Any]]:
        """Images as they are, and their channels, which are the same in every split."""
        channels = {name: samples.inputs.shape[1] for name, samples in splits.items()}
        if len(set(channels.values())) > 1:
            listed = ", ".join(f"{number} in {name}" for name, number in channels.items())
            raise GraftError(
                f"{self.key}.file={self.file}: images have different numbers of channels, {listed}. "
                "Write all splits with the same number."
            )
        return dict(splits), {"channels": channels["train"]}
