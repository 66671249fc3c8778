"""Against the formulas of others: transformers' filterbank and spectrogram, which follow librosa's."""

import numpy as np
import pytest
import torch

from graft.inputs.audio.mel import Mel, filterbank, relative_decibels

RATE = 16000


@pytest.mark.parametrize(("rate", "fft", "bands"), [(16000, 400, 40), (8000, 256, 64), (22050, 1024, 80)])
def test_the_filterbank_is_slaneys(rate, fft, bands):
    audio_utils = pytest.importorskip("transformers.audio_utils")
    expected = audio_utils.mel_filter_bank(
        num_frequency_bins=fft // 2 + 1,
        num_mel_filters=bands,
        min_frequency=0,
        max_frequency=rate / 2,
        sampling_rate=rate,
        norm="slaney",
        mel_scale="slaney",
    )
    torch.testing.assert_close(filterbank(rate, fft, bands), torch.from_numpy(expected.T).float(), atol=1e-7, rtol=1e-5)


def test_the_spectrogram_is_the_power_in_the_bands():
    audio_utils = pytest.importorskip("transformers.audio_utils")
    wave = np.random.default_rng(0).normal(0, 0.1, 4000)
    window = audio_utils.window_function(400, "hann", periodic=True)
    expected = audio_utils.spectrogram(
        wave,
        window,
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=2.0,
        pad_mode="constant",
        mel_filters=filterbank(RATE, 512, 40).double().numpy().T,
        mel_floor=0.0,
    )
    found = Mel(RATE, window=400, fft=512, hop=160, n_mels=40)(torch.from_numpy(wave).float()[None])
    assert found.shape == (1, 40, 25)
    torch.testing.assert_close(found[0], torch.from_numpy(expected[:, :25]).float(), atol=1e-6, rtol=1e-3)


def test_a_tone_is_in_its_band():
    time = torch.arange(RATE) / RATE
    power = Mel(RATE, 400, 512, 160, 64)(torch.sin(2 * torch.pi * 1000 * time)[None])
    centres = (filterbank(RATE, 512, 64) * torch.linspace(0, RATE / 2, 257)).sum(1) / filterbank(RATE, 512, 64).sum(1)
    assert abs(centres[power.mean(2).argmax()] - 1000) < 30


def test_decibels_do_not_depend_on_loudness_and_silence_is_black():
    power = torch.rand(3, 8, 5) ** 20
    image = relative_decibels(power)
    assert image.amin() >= 0
    torch.testing.assert_close(image.amax((1, 2)), torch.ones(3))
    torch.testing.assert_close(relative_decibels(power * 100), image, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        relative_decibels(torch.tensor([[[1.0, 1e-4, 1e-9]]]))[0, 0], torch.tensor([1, 0.5, 0.0])
    )
    assert not relative_decibels(torch.zeros(1, 8, 5)).any()
