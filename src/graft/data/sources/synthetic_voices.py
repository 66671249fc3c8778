"""Spoken words from the espeak-ng engine, which comes as a package: speech without a download or a recording."""

import functools
import hashlib
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graft.config.types import Count, Seed
from graft.data.domain import Domain
from graft.data.readers import espeak
from graft.data.readers.recordings import resampled
from graft.data.samples import Raw, Samples, generator, sha256
from graft.errors import GraftError

SPEEDS = range(110, 230, 5)  # words a minute
PITCHES = range(20, 85, 5)  # of espeak's 0 to 99
RANGES = (20, 50, 80)  # how much the pitch changes, of 0 to 99
FULL_SCALE = 2**15
ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Utterance:
    """A word as it is to be said."""

    text: str
    voice: str
    speed: int
    pitch: int
    range: int


class SyntheticSpeech(Domain):
    """Each word is a class; no two samples of a word share voice, speed, pitch and range, in any split."""

    modality = "audio"
    noun = "recordings"
    title = "synthetic speech"

    def __init__(
        self,
        words: Sequence[str],
        voices: Sequence[str],
        samples: Count = 2000,
        seed: Seed = 0,
        held_out_voices: Sequence[str] = (),
    ) -> None:
        """`samples` for training, an eighth of it for validation and test each; `voices` are `<language>+<variant>`.

        `held_out_voices` say the test split in the place of these.
        """
        super().__init__()
        self.words = tuple(words)
        self.voices = tuple(voices)
        self.samples = samples
        self.seed = seed
        self.held_out_voices = tuple(held_out_voices)

    def read(self) -> Raw:
        """The three splits; nothing is spoken yet, and the split seed has nothing to decide."""
        self._refuse_unusable()
        counts = {"train": self.samples, "val": self._few, "test": self._few}
        begins = dict(zip(counts, itertools.accumulate(counts.values(), initial=0), strict=False))
        plan = self._plan(sum(counts.values()), self.voices)
        splits = {}
        for name, count in counts.items():
            utterances = plan[begins[name] : begins[name] + count]
            if name == "test" and self.held_out_voices:
                utterances = self._plan(count, self.held_out_voices)
            splits[name] = Samples(
                inputs=Utterances(utterances, self._engine),
                labels=[utterance.text for utterance in utterances],
                places=[f"{utterance.text} by {utterance.voice}" for utterance in utterances],
                contents=None,  # no two are the same
            )
        return Raw(splits, self.words, fingerprint=self._fingerprint())

    def _fingerprint(self) -> str:
        """Hash of what decides the sound: settings, this code and the engine."""
        own = (self.words, self.voices, self.samples, self.seed, SPEEDS, PITCHES, RANGES, self.held_out_voices)
        settings = repr(own).encode()
        code = [Path(__file__).read_bytes(), Path(espeak.__file__).read_bytes()]
        return sha256([settings, *code, hashlib.sha256(Path(self._engine["library"]).read_bytes()).digest()])

    @property
    def _few(self) -> int:
        return max(self.samples // 8, 2 * len(self.words))

    @functools.cached_property
    def _engine(self) -> dict[str, str]:
        """Where the engine's library and its data are."""
        try:
            import espeakng_loader
        except ImportError as error:
            raise GraftError(
                f"{self.key}: words are spoken by espeak-ng, which is not installed. Install it: "
                "pip install '.[speech]'; or use recordings: data/domain@data.target=audio_folder"
            ) from error
        return {"library": espeakng_loader.get_library_path(), "data": espeakng_loader.get_data_path()}

    def _plan(self, number: int, voices: Sequence[str]) -> list[Utterance]:
        """So many utterances, word after word in turn, each word's without repetition."""
        manners = list(itertools.product(voices, SPEEDS, PITCHES, RANGES))
        orders = [torch.randperm(len(manners), generator=generator(self.seed, word)).tolist() for word in self.words]
        return [
            Utterance(word, *manners[orders[place][turn]])
            for turn in range(-(-number // len(self.words)))
            for place, word in enumerate(self.words)
        ][:number]

    def _refuse_unusable(self) -> None:
        """Raise GraftError for words or voices that make no domain."""
        if len(set(self.words)) < max(2, len(self.words)):
            raise GraftError(f"{self.key}.words={list(self.words)}: at least 2 words, each once, are needed.")
        if len(set(self.voices)) < max(1, len(self.voices)):
            raise GraftError(f"{self.key}.voices={list(self.voices)}: at least 1 voice, each once, is needed.")
        known = sorted(path.name for path in (Path(self._engine["data"]) / "voices" / "!v").iterdir())
        if both := [voice for voice in self.held_out_voices if voice in self.voices]:
            raise GraftError(
                f"{self.key}.held_out_voices: {both[0]!r} is among {self.key}.voices, and says training samples too. "
                "Name other voices, or none: []."
            )
        for voice in (*self.voices, *self.held_out_voices):
            variant = voice.partition("+")[2]
            if variant and variant not in known:
                raise GraftError(f"{self.key}.voices: there is no variant {variant!r}. Known: {', '.join(known)}.")
        manners = len(self.voices) * len(SPEEDS) * len(PITCHES) * len(RANGES)
        most = manners * len(self.words) * 4 // 5
        if self.samples > most:
            raise GraftError(
                f"{self.key}.samples={self.samples}: {len(self.voices)} voices say {len(self.words)} words in no more "
                f"than {most:,} ways. Use fewer samples or more voices."
            )


class Utterances(Sequence):
    """Words that are spoken when the first of them is asked for."""

    def __init__(self, said: Sequence[Utterance], engine: dict[str, str]) -> None:
        self.said = tuple(said)
        self.engine = engine
        self._waveforms: tuple[int, list[np.ndarray]] | None = None

    def __len__(self) -> int:
        return len(self.said)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]  # nobody slices it
        return torch.from_numpy(self._spoken()[1][index])

    def read(self, index: int, sample_rate: int) -> Tensor:
        """An utterance float32 `(L,)` in so many samples a second."""
        rate, waveforms = self._spoken()
        return torch.from_numpy(resampled(waveforms[index], rate, sample_rate))

    def _spoken(self) -> tuple[int, list[np.ndarray]]:
        """The engine's samples a second, and every utterance `(L,)`; several threads ask at once."""
        with ONE_AT_A_TIME:
            if self._waveforms is None:
                self._waveforms = speak(self.said, self.engine)
        return self._waveforms

    def __reduce__(self) -> tuple[type["Utterances"], tuple[Any, ...]]:
        """Worker processes speak anew."""
        return Utterances, (self.said, self.engine)


def speak(said: Sequence[Utterance], engine: dict[str, str]) -> tuple[int, list[np.ndarray]]:
    """Samples a second, and each utterance float32 `(L,)`, one after the other in a process of their own."""
    request = json.dumps({**engine, "utterances": [asdict(utterance) for utterance in said]})
    command = [sys.executable, "-I", espeak.__file__]
    done = subprocess.run(command, input=request.encode(), capture_output=True, check=False)
    stream = np.frombuffer(done.stdout, dtype="<i2")
    header = stream[: len(stream) // 2 * 2].view("<i4")
    if done.returncode != 0 or not len(header):
        raise GraftError(
            f"espeak-ng did not speak (exit code {done.returncode}): {done.stderr.decode().strip()[-300:]}"
        )
    place, waveforms = 2, []
    for utterance in said:
        length = int(stream[place : place + 2].copy().view("<i4")[0])
        if length < 0:
            raise GraftError(
                f"espeak-ng has no voice {utterance.voice!r}. Known languages are en, en-us, en-gb-scotland, ..."
            )
        waveforms.append(stream[place + 2 : place + 2 + length].astype(np.float32) / FULL_SCALE)
        place += 2 + length
    return int(header[0]), waveforms
