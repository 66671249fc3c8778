import os

import numpy as np
import pytest
import soundfile
import torch

from graft.backbones.speech import SpeakerLSTM, mel_backbone
from graft.cache.disk import DiskCache
from graft.cache.ragged import MappedWaveforms
from graft.data.readers.recordings import SoundFiles
from graft.data.sources.audio_folder import AudioFolder
from graft.errors import GraftError
from graft.inputs.audio.transform import clipped
from graft.inputs.image import decoded
from tests.data.test_audio_folder import PATTERN

ALL = torch.arange(12)


@pytest.fixture(scope="module")
def spec():
    return mel_backbone("test_resnet", sample_rate=8000, clip_seconds=0.3, n_mels=32, hop_length_ms=10).input_spec


@pytest.fixture
def split(tones):
    return AudioFolder(str(tones), PATTERN, val_fraction=0.2, test_fraction=0.2).load(0).train


@pytest.fixture
def cache(tmp_path):
    return DiskCache(tmp_path / "cache", 2**24)


def test_the_middle_of_a_longer_recording_and_zeros_behind_a_shorter_one():
    clips, lengths = clipped([torch.arange(1.0, 8), torch.ones(2), torch.ones(4)], 4, anywhere=False)
    assert clips.tolist() == [[2, 3, 4, 5], [1, 1, 0, 0], [1, 1, 1, 1]]
    assert lengths.tolist() == [4, 2, 4]


def test_clips_from_anywhere_reach_both_ends_and_lose_nothing_of_short_ones():
    torch.manual_seed(0)
    long, short = torch.arange(1.0, 7), torch.ones(2)
    firsts, ends = set(), set()
    for _ in range(100):
        clips, lengths = clipped([long, short], 4, anywhere=True)
        firsts.add(clips[0, 0].item())
        ends.add(lengths[1].item())
        assert (clips[0].diff() == 1).all()
        assert clips[1].sum() == 2
        assert clips[1, lengths[1] - 2 : lengths[1]].sum() == 2
    assert (firsts, ends) == ({1, 2, 3}, {2, 3, 4})


def test_recordings_are_kept_as_they_were_read(spec, split, cache, monkeypatch):
    transform = spec.transform()
    plain = transform.prepare(split, None)[ALL]
    kept = transform.prepare(split, cache)
    assert isinstance(kept, MappedWaveforms)
    monkeypatch.setattr(SoundFiles, "read", lambda *_: pytest.fail("read again"))
    again = transform.prepare(split, cache)
    assert all(torch.equal(one, other) for one, other in zip(plain, again[ALL], strict=True))
    assert again.lengths.tolist() == [len(sound) for sound in plain]


def test_other_samples_and_rates_have_entries_of_their_own(spec, split, cache):
    longer = mel_backbone("test_resnet", sample_rate=8000, clip_seconds=0.5, n_mels=64).input_spec
    for one, samples in (
        (spec, split),
        (longer, split),
        (SpeakerLSTM().input_spec, split),
        (spec, split.subset(ALL[:3])),
    ):
        one.transform().prepare(samples, cache)
    assert len([path for path in cache.folder.iterdir() if path.name != "locks"]) == 3


def test_without_room_recordings_are_read_every_time(spec, split, tmp_path, capsys):
    decoded.say_once.cache_clear()
    rows = spec.transform().prepare(split, DiskCache(tmp_path / "cache", 1))
    assert rows.slow
    assert len(rows[ALL]) == 12
    assert "cannot be kept" in capsys.readouterr().out


def test_evaluation_is_the_same_each_time_and_augmentation_follows_the_seed(spec, split):
    plain, changed = spec.transform(), spec.transform("specaugment")
    sounds = plain.prepare(split, None)[ALL]
    assert torch.equal(plain.collate(sounds), plain.collate(sounds))

    def drawn(seed):
        torch.manual_seed(seed)
        return changed.collate(sounds)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert drawn(1).shape == plain.collate(sounds).shape == (12, 1, 32, 30)


def test_shifts_change_the_same_clips_in_the_same_way(spec, split):
    sounds = spec.transform().prepare(split, None)[ALL]
    plain = spec.transform().collate(sounds)
    for shift in ("noise", "telephone"):
        transform = spec.transform(shift=shift)
        together = transform.collate(sounds)
        assert not torch.allclose(together, plain)
        torch.testing.assert_close(transform.collate(sounds[3:4]), together[3:4])


def test_what_is_not_for_speech_is_refused(spec):
    with pytest.raises(GraftError, match=r"data\.augment='crop' is not for speech\. Allowed: none, light, specaugment"):
        spec.transform("crop")
    with pytest.raises(GraftError, match=r"data\.test_shifts=\[blur\]: it is not for speech\. Allowed: noise, "):
        spec.transform(shift="blur")


def test_a_file_that_breaks_after_it_was_checked_is_named(spec, split, tones):
    for file in tones.glob("*.wav"):
        os.truncate(file, 10)
    with pytest.raises(GraftError, match=r"\.wav cannot be read as sound: .*Replace or remove the file"):
        spec.transform().prepare(split, None)[ALL]


def test_resampling_keeps_the_tone_and_drops_what_is_above(tmp_path):
    time = np.arange(16000) / 16000
    soundfile.write(
        tmp_path / "a.wav", 0.2 * np.sin(2 * np.pi * 500 * time) + 0.2 * np.sin(2 * np.pi * 6000 * time), 16000
    )
    sound = SoundFiles([tmp_path / "a.wav"]).read(0, 8000)
    spectrum = torch.fft.rfft(sound * torch.hann_window(8000)).abs()
    assert spectrum.argmax() == 500
    assert spectrum[1000:].max() < 0.01 * spectrum.max()
