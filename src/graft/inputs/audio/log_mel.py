"""Whisper's log-mels in plain torch, equal to those of its feature extractor."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.inputs.audio.mel import filterbank
from graft.inputs.base import Fields

SAMPLE_RATE, WINDOW, HOP = 16_000, 400, 160
FLOOR, RANGE = 1e-10, 8.0  # smallest power, and decades below a clip's loudest value that are told apart
LONGEST = 30 * SAMPLE_RATE  # samples, to which its feature extractor fills up every clip


@dataclass(frozen=True)
class LogMel:
    """Clips `(B, T)` to `input_features` `(B, n_mels, frames)`, with the clips' lengths in samples.

    The extractor fills clips up to 30 seconds with zeros. These are its first frames, whatever T is: behind a clip that
    is shorter come the zeros that the last window reaches into.
    """

    n_mels: int
    frames: int

    frequency_dim = 1
    spectrogram = "input_features"

    def __call__(self, waves: Tensor, lengths: Tensor) -> Fields:
        """The spectrograms of some clips."""
        samples = self.frames * HOP
        waves = F.pad(waves, (0, samples - waves.shape[1]))
        before = F.pad(waves[:, None], (WINDOW // 2, 0), mode="reflect")[:, 0]
        at_the_end = "reflect" if samples == LONGEST else "constant"
        around = F.pad(before[:, None], (0, WINDOW // 2), mode=at_the_end)[:, 0]
        window = torch.hann_window(WINDOW, device=waves.device)
        spectrum = torch.stft(around, WINDOW, HOP, WINDOW, window, center=False, return_complex=True)
        power = spectrum[..., : self.frames].abs().square()
        mels = filterbank(SAMPLE_RATE, WINDOW, self.n_mels).to(power) @ power
        logs = mels.clamp(min=FLOOR).log10()
        logs = torch.maximum(logs, logs.amax((1, 2), keepdim=True) - RANGE)
        return Fields({self.spectrogram: (logs + 4) / 4, "lengths": lengths})
