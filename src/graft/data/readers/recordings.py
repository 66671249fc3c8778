"""Recordings with labels: sound files that are checked before anything is trained, and read at any sample rate."""

import functools
import hashlib
import io
import math
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graft.data.domain import Domain
from graft.data.readers.folders import file_name, file_problem, shown
from graft.data.readers.labelled import Record, raw_of
from graft.data.samples import Raw
from graft.errors import GraftError, first_line

EXTENSIONS = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au"}
THREADS = 4
MANY = 10_000  # files; checking fewer takes no time worth a line
LOWEST_RATE, HIGHEST_RATE = 100, 1_000_000  # samples a second; others are damage of a header
BLOCK = 2**18  # samples that are checked at a time
LONGEST = 2**31  # samples of a recording, in all channels
# What libsndfile notes of a WAV, AIFF or AU file whose samples are fewer than its header says
CUT = re.compile(r"(?:data|SSND|Data Size) +: (\d+) \(should be (\d+)\)")
STREAMED = 2**31 - 2**16  # bytes from which on a header means that nobody knew the length
LEAST_THERE = 0.9  # of the samples in a header, which some coders round or estimate


class LabelledRecordings(Domain):
    """A domain of sound files that `list_files` gives; the content of a record is the file's path."""

    modality = "audio"
    noun = "recordings"

    def __init__(self, classes: Sequence[str | int] | None = None, **settings: Any) -> None:
        """`classes` in their order, a recording of another one is bad."""
        super().__init__(**settings)
        self.classes = None if classes is None else tuple(str(name) for name in classes)

    def list_files(self) -> dict[str, list[Record]]:
        """Rows of each split that there is, with a problem where no file could be named; files are not opened."""
        raise NotImplementedError

    def left_out(self) -> Mapping[str, Mapping[str, int]]:
        """By split and reason, how many files are no recordings; asked for after `list_files`."""
        return {}

    def read(self) -> Raw:
        """The recordings of all splits; every file is looked into."""
        splits = self.list_files()
        require_soundfile(self.key)
        files = [row.content for rows in splits.values() for row in rows if not row.problem]
        if len(files) >= MANY:
            print(f"Checking {len(files):,} sound files", flush=True)
        with ThreadPoolExecutor(THREADS) as pool:
            found = dict(zip(files, pool.map(inspect, files), strict=True))
        records = {
            split: [row if row.problem else with_problem(row, found[row.content][1]) for row in rows]
            for split, rows in splits.items()
        }
        return raw_of(records, self.classes, SoundFiles, lambda path: found[path][0], self.left_out())


def require_soundfile(key: str) -> None:
    """Raise GraftError, which names `key`, where the library that reads sound files is not there."""
    try:
        imported_soundfile()
    except ImportError as error:
        raise GraftError(
            f"{key}: sound files are read with soundfile, which cannot be imported ({first_line(error)}). "
            "Install it: pip install '.[speech]'"
        ) from error


def with_problem(row: Record, problem: str) -> Record:
    """A row with what is wrong with its file, which a row of a table does not name."""
    named = problem and row.number is not None
    return replace(row, problem=f"{shown(row.content)}: {problem}" if named else problem)


class SoundFiles(Sequence):
    """Sound files, or what they hold as bytes, decoded when asked for."""

    def __init__(self, files: Sequence[Path | bytes]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]  # nobody slices it
        return torch.from_numpy(decode(self.files[index])[0])

    def read(self, index: int, sample_rate: int) -> Tensor:
        """A recording float32 `(L,)` at a sample rate."""
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
    if problem := file_problem(path):
        return b"", problem
    try:
        content = path.read_bytes()
    except OSError as error:
        return b"", f"it cannot be read ({error.strerror})"
    return hashlib.sha256(content).digest(), content_problem(content)


def content_problem(content: bytes) -> str:
    """Why a file's bytes cannot be used, empty where they can."""
    try:
        return sound_problem(content)
    except Exception as error:  # whatever a decoder raises is about this one file
        return f"it cannot be read as sound ({first_line(error)})"


def sound_problem(content: bytes) -> str:
    """Why a file's bytes cannot be used as sound, empty where they can; anything that a decoder raises."""
    if not content:
        return "the file is empty"
    with imported_soundfile().SoundFile(io.BytesIO(content)) as sound:
        if sound.frames == 0:
            return "it has no sound in it"
        if not LOWEST_RATE <= sound.samplerate <= HIGHEST_RATE:
            return f"its header says {sound.samplerate:,} samples a second"
        if sound.frames * sound.channels > LONGEST:
            return f"its header says {sound.frames:,} samples in {sound.channels} channels"
        if cut := CUT.search(sound.extra_info):
            promised, there = int(cut[1]), int(cut[2])
            if there < promised < STREAMED:
                return f"it ends before its header says, {there:,} of {promised:,} bytes are there"
        if sound.subtype.startswith("PCM_") and sound.format != "FLAC":
            return ""
        length, finite = 0, True
        while len(block := sound.read(BLOCK, dtype="float32")):  # blocks() fills what is not there with old memory
            length, finite = length + len(block), finite and bool(np.isfinite(block).all())
        if length == 0:
            return "it has no sound in it"
        if length < LEAST_THERE * sound.frames:
            return f"it ends before its header says, {length:,} of {sound.frames:,} samples are there"
    return "" if finite else "it holds NaN or infinite values"


def decode(file: Path | bytes) -> tuple[np.ndarray, int]:
    """A file's sound float32 `(L,)`, channels averaged, and its samples a second; GraftError for a broken file."""
    soundfile = imported_soundfile()
    try:
        source = io.BytesIO(file) if isinstance(file, bytes) else str(file)
        values, rate = soundfile.read(source, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, MemoryError) as error:
        name = file_name(file)
        raise GraftError(f"{name} cannot be read as sound: {first_line(error)}. Replace or remove the file.") from error
    return values.mean(1), rate


def resampled(values: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Sound float32 `(L,)` of `rate` samples a second in another number of them, without what they cannot hold."""
    if rate == sample_rate:
        return values
    from scipy.signal import resample_poly  # takes a while to import

    common = math.gcd(rate, sample_rate)
    return resample_poly(values, sample_rate // common, rate // common).astype(np.float32)
