"""What a speech backbone wants to hear, and from recordings of any length to it."""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Subset

from graft.cache.disk import DiskCache, NoRoom
from graft.cache.key import cache_key, code_used
from graft.cache.ragged import MappedWaveforms, write_sequences
from graft.data.samples import Split, located
from graft.errors import GraftError
from graft.inputs.audio.augment import AUGMENTATIONS, BANK, SHIFTS, SpeechAugmentation
from graft.inputs.base import Fields, Inputs
from graft.inputs.image.augment import random_offsets
from graft.inputs.image.decoded import MANY, SAMPLE, THREADS, decode_chunks, innermost
from graft.notes import say_once


class Front(Protocol):
    """From waveforms to what a network takes; its repr says all that decides how."""

    frequency_dim: int | None  # of its inputs, time is the other one of the last two; None without one

    def __call__(self, waves: Tensor, lengths: Tensor) -> Inputs:
        """Inputs `(B, ...)` of waveforms `(B, T)`, of which `lengths` `(B,)` samples are sound and the rest zeros."""


@dataclass(frozen=True)
class SpeechSpec:
    """Samples a second and samples of a clip, and what makes a network's inputs of clips."""

    sample_rate: int
    samples: int
    front: Front

    def __str__(self) -> str:
        return f"{self.samples / self.sample_rate:.3g} seconds at {self.sample_rate:,} Hz"

    def transform(self, augment: str = "none", shift: str | None = None) -> Any:
        """Recordings of any length as this network wants them."""

        return SpeechTransform(self, augment, shift)


class Sounds(Protocol):
    """The samples of a domain of speech."""

    def __len__(self) -> int: ...

    def read(self, index: int, sample_rate: int) -> Tensor:
        """A recording float32 `(L,)` in so many samples a second."""


class LazyAudio:
    """Recordings that are read whenever they are asked for; indexing by `(B,)` gives a list of `(L,)`."""

    slow = True

    def __init__(self, inputs: Sounds | Subset, sample_rate: int) -> None:
        self.inputs = inputs
        self.sample_rate = sample_rate

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, indices: Tensor) -> list[Tensor]:
        return [self.load(index) for index in indices.tolist()]

    def load(self, index: int) -> Tensor:
        """One recording `(L,)`."""
        inputs, index = located(self.inputs, index)
        return inputs.read(index, self.sample_rate)


class SpeechTransform:
    """Recordings `(L,)` to a network's inputs: clips of one length, changed at random where asked, and its `front`.

    A longer recording is cut, around its middle or with augmentation anywhere; behind a shorter one come zeros.
    """

    def __init__(self, spec: "SpeechSpec", augment: str = "none", shift: str | None = None) -> None:
        if augment not in AUGMENTATIONS:
            raise GraftError(f"data.augment={augment!r} is not for speech. Allowed: {', '.join(AUGMENTATIONS)}.")
        if shift is not None and shift not in SHIFTS:
            raise GraftError(f"data.test_shifts=[{shift}]: it is not for speech. Allowed: {', '.join(SHIFTS)}.")
        if augment == "specaugment" and spec.front.frequency_dim is None:
            raise GraftError(
                "data.augment=specaugment: it masks spectrograms, and this backbone takes waveforms. "
                "Use data.augment=light."
            )
        self.spec = spec
        self.augment = None if augment == "none" else SpeechAugmentation(masks=augment == "specaugment")
        self.shift = shift
        self.others: Sequence[Tensor] = ()  # recordings of the split, of which babble is made

    @property
    def key(self) -> str:
        """The sample rate: clips are cut from what is kept. Babble has to be shown the split itself."""
        return self.waveforms + (" and others behind them" if self.babbles else "")

    @property
    def waveforms(self) -> str:
        """What is kept of recordings."""
        return f"waveforms at {self.spec.sample_rate} Hz"

    @property
    def babbles(self) -> bool:
        """Whether a clip has others of the split behind it."""
        return self.shift is not None and self.shift.startswith("babble")

    def prepare(self, split: Split, cache: DiskCache | None) -> LazyAudio | MappedWaveforms:
        """The split's recordings, whole; from the cache where they are there."""
        lazy = LazyAudio(cast(Sounds | Subset, split.inputs), self.spec.sample_rate)
        if self.babbles:
            number = min(BANK, len(lazy))
            self.others = [lazy.load(index * len(lazy) // number) for index in range(number)]
        if cache is None or not len(lazy):
            return lazy
        depends_on = {
            "split": split.fingerprint,
            "waveforms": self.waveforms,
            "code": code_used(__name__, innermost(split.inputs)),
        }
        try:
            size, make = functools.partial(expected_bytes, lazy), functools.partial(read_all, lazy)
            return cache.get(cache_key(depends_on), size, make, MappedWaveforms)
        except (NoRoom, OSError) as error:
            say_once(f"Recordings are read anew in every epoch, because they cannot be kept: {error}.")
            return lazy

    def collate(self, recordings: Sequence[Tensor]) -> Inputs:
        """Inputs of some recordings; only here is something random drawn."""
        clips, lengths = clipped(recordings, self.spec.samples, anywhere=self.augment is not None)
        if self.augment is not None:
            clips = self.augment.waves(clips, lengths)
        if self.shift is not None:
            clips = SHIFTS[self.shift](clips, lengths, self.spec.sample_rate, self.others)
        inputs = self.spec.front(clips, lengths)
        if self.augment is not None and self.augment.masks:
            dim = self.spec.front.frequency_dim
            assert dim is not None  # as the constructor saw
            if isinstance(inputs, Tensor):
                return self.augment.masked(inputs, dim)
            name = self.spec.front.spectrogram  # type: ignore[attr-defined]  # a front of several fields has it
            inputs = Fields({**inputs.tensors, name: self.augment.masked(inputs[name], dim)})
        return inputs


def clipped(recordings: Sequence[Tensor], samples: int, anywhere: bool) -> tuple[Tensor, Tensor]:
    """Clips `(B, samples)`, and how many samples `(B,)` end with a recording's last one.

    The middle of a longer recording, and zeros behind a shorter one; `anywhere` draws where it begins.
    """
    lengths = torch.tensor([len(recording) for recording in recordings])
    room = (lengths - samples).abs()
    begins = random_offsets(room) if anywhere else torch.where(lengths > samples, room // 2, 0)
    clips = []
    for recording, begin in zip(recordings, begins.tolist(), strict=True):
        if len(recording) > samples:
            clips.append(recording[begin : begin + samples])
        else:
            clips.append(F.pad(recording, (begin, samples - begin - len(recording))))
    return torch.stack(clips), torch.where(lengths > samples, samples, begins + lengths)


def expected_bytes(recordings: LazyAudio) -> int:
    """What all recordings take, from a few of them."""
    number = min(SAMPLE, len(recordings))
    sample = [recordings.load(i * len(recordings) // number) for i in range(number)]
    return sum(recording.nbytes for recording in sample) * len(recordings) // number


def read_all(recordings: LazyAudio, folder: Path) -> None:
    """Write all recordings into a folder, read by several threads."""
    if len(recordings) >= MANY:
        print(f"Reading {len(recordings):,} recordings, kept in {folder.parent}", flush=True)
    with ThreadPoolExecutor(THREADS) as pool:
        write_sequences(folder, (recording for chunk in decode_chunks(recordings, pool) for recording in chunk))
