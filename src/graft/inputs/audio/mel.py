"""Mel spectrograms in plain torch, as librosa computes them: Slaney's scale, triangles of equal area."""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

LINEAR_HZ = 200 / 3  # of a mel below the corner
CORNER_HZ, CORNER_MEL = 1000.0, 15.0
LOG_STEP = math.log(6.4) / 27  # of a mel above it
DYNAMIC_RANGE = 80.0  # decibels below the loudest value of a recording that are told apart
SILENCE = 1e-8  # power that counts as the loudest where there is less


@dataclass(frozen=True)
class Mel:
    """Waveforms `(B, T)` to power in mel bands over time `(B, n_mels, T // hop)`; frames are centred, zeros around."""

    sample_rate: int
    window: int  # samples, of a Hann window
    fft: int  # samples, the window with zeros around it
    hop: int  # samples
    n_mels: int

    def __call__(self, waves: Tensor) -> Tensor:
        """The spectrogram of a batch."""
        window = torch.hann_window(self.window)
        spectrum = torch.stft(
            waves, self.fft, self.hop, self.window, window, center=True, pad_mode="constant", return_complex=True
        )
        power = spectrum.abs().square()[..., : waves.shape[-1] // self.hop]
        return filterbank(self.sample_rate, self.fft, self.n_mels) @ power


@functools.cache
def filterbank(sample_rate: int, fft: int, n_mels: int) -> Tensor:
    """Weights `(n_mels, fft // 2 + 1)` of frequencies in bands that are equally wide in mels, from 0 Hz to the highest.

    Each is a triangle that reaches from one neighbour's middle to the other's, of area 1 over Hz.
    """
    nyquist = sample_rate / 2
    edges = to_hertz(torch.linspace(0, to_mel(nyquist), n_mels + 2, dtype=torch.float64))
    frequencies = torch.linspace(0, nyquist, fft // 2 + 1, dtype=torch.float64)
    low, middle, high = (edges[index : index + n_mels, None] for index in range(3))
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return (triangles * 2 / (high - low)).float()


def to_mel(hertz: float) -> float:
    """Slaney's mels: linear up to 1 kHz, logarithmic above."""
    if hertz < CORNER_HZ:
        return hertz / LINEAR_HZ
    return CORNER_MEL + math.log(hertz / CORNER_HZ) / LOG_STEP


def to_hertz(mels: Tensor) -> Tensor:
    """The way back."""
    return torch.where(mels < CORNER_MEL, mels * LINEAR_HZ, CORNER_HZ * torch.exp(LOG_STEP * (mels - CORNER_MEL)))


def relative_decibels(power: Tensor) -> Tensor:
    """Power `(B, n_mels, frames)` as an image in [0, 1]: from DYNAMIC_RANGE below each recording's loudest value to it.

    How loud a recording is does not matter; silence is black.
    """
    loudest = power.amax((1, 2), keepdim=True).clamp(min=SILENCE)
    lowest = 10 ** (-DYNAMIC_RANGE / 10)
    return 1 + 10 * (power / loudest).clamp(min=lowest).log10() / DYNAMIC_RANGE
