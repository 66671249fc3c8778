"""Changes of speech: random ones drawn for each clip of a batch from torch's global generator, and shifts for tests."""

import functools
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from graft.inputs.image.augment import random_offsets, uniform

AugmentName = Literal["none", "light", "specaugment"]
AUGMENTATIONS = get_args(AugmentName)
GAIN = (-6.0, 6.0)  # decibels
NOISY = 0.5  # share of the clips that get noise: what is tested is clean
SNR = (10.0, 40.0)  # decibels of speech over noise
MASKS = 2  # of each kind, as SpecAugment's policy LD
BANDS, FRAMES = 27 / 80, 0.2  # largest share of a mask: LD's 27 of 80 bands, and its limit on time for short clips
SHIFT_SNR = 10.0  # decibels, of the shifts with noise
VOICES, BANK = 4, 64  # recordings that speak at once in babble, and of how many of a split they are chosen
TELEPHONE = (300.0, 3400.0)  # hertz that pass
TELEPHONE_RATE, MU = 8000, 255  # samples a second, and steps but one, of ITU-T G.711
Recordings = Sequence[Tensor]  # (L,) each


class SpeechAugmentation:
    """Gain of clips, and white noise in some; with `masks` bands and stretches of time of their spectrograms go too."""

    slow = False

    def __init__(self, masks: bool) -> None:
        self.masks = masks

    def waves(self, clips: Tensor, lengths: Tensor) -> Tensor:
        """Clips `(B, T)` of another loudness, some with noise."""
        gain = 10 ** (uniform(len(clips), *GAIN) / 20)
        noisy = with_noise(clips, lengths, torch.randn(clips.shape), uniform(len(clips), *SNR))
        return gain[:, None] * torch.where(torch.rand(len(clips), 1) < NOISY, noisy, clips)

    def masked(self, spectrograms: Tensor, frequency_dim: int) -> Tensor:
        """SpecAugment's masks (Park et al., Interspeech 2019): each clip's mean in a range of bands or of frames.

        `frequency_dim` is the dimension of frequency, of the last two; that of time is the other one.
        """
        last = spectrograms.ndim - 1
        frames = last if frequency_dim == last - 1 else last - 1
        mean = spectrograms.mean((last - 1, last), keepdim=True)
        for dimension, share in ((frequency_dim, BANDS), (frames, FRAMES)):
            for _ in range(MASKS):
                mask = random_range(len(spectrograms), spectrograms.shape[dimension], share)
                shape = [1] * spectrograms.ndim
                shape[0], shape[dimension] = mask.shape
                spectrograms = torch.where(mask.view(shape), mean, spectrograms)
        return spectrograms


def random_range(number: int, size: int, share: float) -> Tensor:
    """Masks `(number, size)`, true in a range of up to `share` of the places, at any of them."""
    width = random_offsets(torch.full((number,), int(share * size)))
    begin = random_offsets(size - width)
    place = torch.arange(size)
    return (place >= begin[:, None]) & (place < (begin + width)[:, None])


def with_noise(clips: Tensor, lengths: Tensor, noise: Tensor, snr: Tensor) -> Tensor:
    """Clips `(B, T)` and noise of power 1, so many decibels `(B,)` below the speech itself; silence stays silent."""
    power = clips.square().sum(1) / lengths.clamp(min=1)
    return clips + (power / 10 ** (snr / 10)).sqrt()[:, None] * noise


# The same change of every test clip: nothing random. Each takes clips `(B, T)`, their lengths `(B,)`, samples a second
# and whole recordings of the split, of which those that are not the clip's own speak behind it


def shift_noise(
    clips: Tensor, lengths: Tensor, sample_rate: int, others: Recordings = (), snr: float = SHIFT_SNR
) -> Tensor:
    """Clips with the same white noise each."""
    noise = torch.randn(clips.shape[1], generator=torch.Generator().manual_seed(0))
    return with_noise(clips, lengths, noise.expand_as(clips), torch.full((len(clips),), snr))


def shift_babble(
    clips: Tensor, lengths: Tensor, sample_rate: int, others: Recordings, snr: float = SHIFT_SNR
) -> Tensor:
    """Clips with other recordings of the split behind them, which depend on the clip alone."""
    voices = [babble(clip[:length], clips.shape[1], others) for clip, length in zip(clips, lengths, strict=True)]
    return with_noise(clips, lengths, torch.stack(voices), torch.full((len(clips),), snr))


def shift_telephone(clips: Tensor, lengths: Tensor, sample_rate: int, others: Recordings = ()) -> Tensor:
    """Clips as an old telephone lets them through."""
    return at_rate(telephone_band(torch.fft.rfft(clips), clips.shape[1], sample_rate), clips.shape[1])


def shift_telephone_8bit(clips: Tensor, lengths: Tensor, sample_rate: int, others: Recordings = ()) -> Tensor:
    """Clips as a digital telephone does: its band in 8,000 samples a second, each in one of mu-law's 256 steps."""
    size = clips.shape[1]
    lines = at_rate(
        telephone_band(torch.fft.rfft(clips), size, sample_rate), round(size * TELEPHONE_RATE / sample_rate)
    )
    lines = mu_law(lines * lines.shape[1] / size)
    return at_rate(torch.fft.rfft(lines), size) * size / lines.shape[1]


def babble(clip: Tensor, samples: int, others: Recordings) -> Tensor:
    """Noise `(T,)` of power 1: VOICES of the other recordings at once, equally loud, each over and over."""
    choice = torch.Generator().manual_seed(zlib.crc32(clip.numpy().tobytes()))
    total, found = torch.zeros(samples), 0
    for place in torch.randperm(len(others), generator=choice).tolist():
        voice = others[place]
        power = voice.square().mean() if len(voice) else voice.new_zeros(())
        if power > 0 and not (len(voice) == len(clip) and torch.equal(voice, clip)):
            total += voice.repeat(-(-samples // len(voice)))[:samples] / power.sqrt()
            found += 1
        if found == VOICES:
            break
    return total / total.square().mean().sqrt().clamp(min=1e-12)


def telephone_band(spectrum: Tensor, samples: int, sample_rate: int) -> Tensor:
    """The frequencies of a spectrum `(B, F)` of clips of so many samples that pass a telephone."""
    frequencies = torch.fft.rfftfreq(samples, 1 / sample_rate)
    low, high = TELEPHONE
    return torch.where((frequencies >= low) & (frequencies <= high), spectrum, 0)


def at_rate(spectrum: Tensor, samples: int) -> Tensor:
    """Clips `(B, samples)` of a spectrum: fewer samples than it was made of leave its highest frequencies out."""
    return torch.fft.irfft(spectrum, n=samples)


def mu_law(clips: Tensor) -> Tensor:
    """Samples in [-1, 1] rounded to the nearest of 256 steps of ITU-T G.711's curve, in its continuous form."""
    squeezed = clips.clamp(-1, 1).sign() * (MU * clips.clamp(-1, 1).abs()).log1p() / math.log1p(MU)
    rounded = ((squeezed + 1) / 2 * MU).round() / MU * 2 - 1
    return rounded.sign() * torch.expm1(rounded.abs() * math.log1p(MU)) / MU


SHIFTS: dict[str, Callable[[Tensor, Tensor, int, Recordings], Tensor]] = {
    "noise": shift_noise,
    "noise_0db": functools.partial(shift_noise, snr=0.0),
    "babble": shift_babble,
    "babble_0db": functools.partial(shift_babble, snr=0.0),
    "telephone": shift_telephone,
    "telephone_8bit": shift_telephone_8bit,
}
