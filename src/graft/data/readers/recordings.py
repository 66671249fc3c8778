"""Recordings with labels: sound files that are checked before anything is trained, and read at any sample rate."""

import functools
import hashlib
import io
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graft.data.readers.labelled import LabelledSamples, Record
from graft.errors import GraftError, first_line

EXTENSIONS = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au"}
THREADS = 4
MANY = 10_000  # files; checking fewer takes no time worth a line


class LabelledRecordings(LabelledSamples):
    """A domain of sound files that `list_files` gives; the content of a row is the file's path."""

    modality = "audio"
    noun = "recordings"

    def list_files(self) -> dict[str, list[Record]]:
        """Rows of each split that there is, with a problem where no file could be named; files are not opened."""
        raise NotImplementedError

    def read(self) -> dict[str, list[Record]]:
        """The rows of all splits, with a problem where the file cannot be used."""
        splits = self.list_files()
        self._require_soundfile()
        files = [row.content for rows in splits.values() for row in rows if not row.problem]
        if len(files) >= MANY:
            print(f"Checking {len(files):,} sound files", flush=True)
        with ThreadPoolExecutor(THREADS) as pool:
            found = dict(zip(files, pool.map(inspect, files), strict=True))
        self._hashes = {path: digest for path, (digest, _) in found.items()}
        problems = {path: problem for path, (_, problem) in found.items()}
        return {
            split: [row if row.problem else replace(row, problem=problems[row.content]) for row in rows]
            for split, rows in splits.items()
        }

    def inputs(self, rows: Sequence[Record]) -> "SoundFiles":
        """Their files."""
        return SoundFiles([row.content for row in rows])

    def bytes_of(self, row: Record) -> bytes:
        """Hash of the file."""
        return self._hashes[row.content]

    def _require_soundfile(self) -> None:
        try:
            imported_soundfile()
        except ImportError as error:
            raise GraftError(
                f"{self.key}: sound files are read with soundfile, which cannot be imported ({first_line(error)}). "
                "Install it: pip install '.[speech]'"
            ) from error


class SoundFiles(Sequence):
    """Sound files, decoded when asked for."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(decode(self.files[index])[0])

    def read(self, index: int, sample_rate: int) -> Tensor:
        """A recording float32 `(L,)` in so many samples a second."""
        return torch.from_numpy(resampled(*decode(self.files[index]), sample_rate))


@functools.cache
def imported_soundfile() -> Any:
    """The library, which is an extra."""
    import soundfile

    return soundfile


def inspect(path: Path) -> tuple[bytes, str]:
    """Hash of a file, and why it cannot be used, empty where it can.

    Whole numbers without compression are what they are; anything else is decoded, to find a broken end or NaN.
    """
    soundfile = imported_soundfile()
    try:
        content = path.read_bytes()
    except OSError as error:
        return b"", f"it cannot be read ({error.strerror})"
    digest = hashlib.sha256(content).digest()
    if not content:
        return digest, "the file is empty"
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as sound:
            if sound.frames == 0:
                return digest, "it has no sound in it"
            plain = sound.subtype.startswith("PCM_") and sound.format != "FLAC"
            values = None if plain else sound.read(dtype="float32")
    except (soundfile.LibsndfileError, RuntimeError) as error:
        return digest, f"it cannot be read as sound ({first_line(error)})"
    if values is not None and len(values) == 0:
        return digest, "it has no sound in it"
    if values is not None and not np.isfinite(values).all():
        return digest, "it holds NaN or infinite values"
    return digest, ""


def decode(path: Path) -> tuple[np.ndarray, int]:
    """A file's sound float32 `(L,)`, channels averaged, and its samples a second; GraftError for a broken file."""
    soundfile = imported_soundfile()
    try:
        values, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise GraftError(f"{path} cannot be read as sound: {first_line(error)}. Replace or remove the file.") from error
    return values.mean(1), rate


def resampled(values: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Sound float32 `(L,)` of `rate` samples a second in another number of them, without what they cannot hold."""
    if rate == sample_rate:
        return values
    from scipy.signal import resample_poly  # takes a while to import

    common = math.gcd(rate, sample_rate)
    return resample_poly(values, sample_rate // common, rate // common).astype(np.float32)
