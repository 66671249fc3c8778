"""Changes of speech: random ones drawn for each clip of a batch from torch's global generator, and shifts for tests."""

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
SHIFT_SNR = 10.0  # decibels, of the noise shift
TELEPHONE = (300.0, 3400.0)  # hertz that pass


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


def shift_noise(clips: Tensor, lengths: Tensor, sample_rate: int) -> Tensor:
    """Clips with the same white noise each."""
    noise = torch.randn(clips.shape[1], generator=torch.Generator().manual_seed(0))
    return with_noise(clips, lengths, noise.expand_as(clips), torch.full((len(clips),), SHIFT_SNR))


def shift_telephone(clips: Tensor, lengths: Tensor, sample_rate: int) -> Tensor:
    """Clips as an old telephone lets them through."""
    spectrum = torch.fft.rfft(clips)
    frequencies = torch.fft.rfftfreq(clips.shape[1], 1 / sample_rate)
    low, high = TELEPHONE
    passed = (frequencies >= low) & (frequencies <= high)
    return torch.fft.irfft(torch.where(passed, spectrum, 0), n=clips.shape[1])


SHIFTS = {"noise": shift_noise, "telephone": shift_telephone}  # the same change of every test clip: nothing random
