"""Images and sound that somebody holds in Python: paths, PIL images, arrays, tensors and waveforms, read by index."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from graft.data.readers.images import Decoded, Look, decode, detail, image_tensor, look_at_pixels, look_into
from graft.data.readers.pixels import DEEP
from graft.data.readers.recordings import decode as decode_sound
from graft.data.readers.recordings import inspect, resampled
from graft.errors import GraftError
from graft.files import user_path


def is_path(one: Any) -> bool:
    """Whether an input names a file."""
    return isinstance(one, str | Path)


# Images


class Pictures(Sequence):
    """Images of any kind, as uint8 `(C, H, W)` when asked for; messages call the third one `<name>[2]`."""

    def __init__(
        self, pictures: Sequence[Any], name: str, channels: int, pixel_range: tuple[float, float] | None
    ) -> None:
        self.pictures = pictures
        self.name = name
        self.channels = channels
        self.pixel_range = pixel_range

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]  # nobody slices it
        picture = self.pictures[index]
        if is_path(picture):
            return decode(user_path(picture), self.channels, pixel_range=self.pixel_range)
        try:
            decoded = decoded_of(picture)
            return image_tensor(decoded.pixels, self.channels, self.pixel_range, decoded.limit)
        except (TypeError, ValueError, RuntimeError) as error:
            raise GraftError(f"{self.name}[{index}] cannot be read as an image: {error}") from error


def decoded_of(picture: Any) -> Decoded:
    """A PIL image, an array `(H, W)` or `(H, W, C)` or a tensor `(C, H, W)`; ValueError for anything else."""
    if isinstance(picture, Image.Image):
        deep = picture.mode in DEEP
        return Decoded(np.array(picture), DEEP[picture.mode]) if deep else Decoded(picture)
    values = channels_last(picture)
    return Decoded(values, None if values.dtype.kind in "fb" else float(np.iinfo(values.dtype).max))


def channels_last(picture: Any) -> np.ndarray:
    """An array `(H, W)` or `(H, W, C)`, or a tensor `(C, H, W)` as torch has them, as an array with channels last."""
    if isinstance(picture, Tensor):
        values = picture.cpu().numpy()
        return values.transpose(1, 2, 0) if values.ndim == 3 else values
    values = np.asarray(picture)
    if values.ndim not in (2, 3) or values.dtype.kind not in "uifb":
        raise ValueError(f"numbers of the shape (H, W) or (H, W, C) are, and this is {values.dtype} {values.shape}")
    return values


def look_at_picture(picture: Any, channels: int) -> Look:
    """What a look into an image of any kind finds."""
    if is_path(picture):
        return look_into(user_path(picture), channels)
    try:
        decoded = decoded_of(picture)
        values = np.asarray(decoded.pixels)
        if not values.size:
            return Look(b"", "it has no pixels")
        return look_at_pixels(decoded, digest_of(values), channels)
    except Exception as error:  # Pillow may be lazy, and a file behind it broken
        return Look(b"", f"it cannot be read as an image ({detail(error)})")


def digest_of(values: np.ndarray) -> bytes:
    """SHA-256 of an array with its type and shape."""
    head = f"{values.dtype.str}{values.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(values).tobytes()).digest()


# Sound


class Sounds(Sequence):
    """Recordings of any kind, float32 `(L,)` when asked for; messages call the third one `<name>[2]`."""

    def __init__(self, sounds: Sequence[Any], name: str, sample_rate: int | None) -> None:
        self.sounds = sounds
        self.name = name
        self.sample_rate = sample_rate

    def __len__(self) -> int:
        return len(self.sounds)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]  # nobody slices it
        return torch.from_numpy(self.values(index)[0])

    def values(self, index: int) -> tuple[np.ndarray, int]:
        """Sound `(L,)`, channels averaged, and its samples a second."""
        sound = self.sounds[index]
        if is_path(sound):
            return decode_sound(user_path(sound))
        try:
            return waveform_of(sound, self.sample_rate)
        except (TypeError, ValueError, RuntimeError) as error:
            raise GraftError(f"{self.name}[{index}]: {error}.") from error

    def read(self, index: int, sample_rate: int) -> Tensor:
        """A recording float32 `(L,)` at a sample rate."""
        return torch.from_numpy(resampled(*self.values(index), sample_rate))


def waveform_of(sound: Any, sample_rate: int | None) -> tuple[np.ndarray, int]:
    """Sound `(L,)`, channels averaged, and its samples a second, of a waveform or a pair of both.

    Raises ValueError for what is neither.
    """
    if isinstance(sound, tuple) and len(sound) == 2:
        sound, sample_rate = sound
    if sample_rate is None:
        raise ValueError(
            "how many samples a second are there? Give pairs (waveform, sample_rate), or sample_rate=16000 for all"
        )
    values = np.asarray(sound, dtype=np.float32)
    if values.ndim == 2:  # (channels, L) as torchaudio has them, or (L, channels) as soundfile has
        values = values.mean(0 if values.shape[0] < values.shape[1] else 1)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"a waveform is finite numbers (L,), and this is {values.shape}")
    return values, int(sample_rate)


def look_at_sound(sound: Any, sample_rate: int | None) -> tuple[bytes, str]:
    """Hash of a recording of any kind, and why it cannot be used, empty where it can."""
    if is_path(sound):
        return inspect(user_path(sound))
    try:
        values, rate = waveform_of(sound, sample_rate)
    except (TypeError, ValueError, RuntimeError) as error:
        return b"", str(error)
    return digest_of(values) + str(rate).encode(), ""
