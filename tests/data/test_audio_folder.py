import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from graft.data.readers import recordings
from graft.data.sources.audio_folder import AudioFolder
from graft.errors import GraftError
from tests.conftest import tone

PATTERN = r"(?P<label>[a-z]+)_(?P<speaker>[a-z]+)_(?P<index>\d+)"
HALVES = {"val_fraction": 0.2, "test_fraction": 0.2}


@pytest.fixture
def folders(tones):
    """The same tones in a folder for each class."""
    for file in tones.glob("*.wav"):
        folder = tones / file.name.partition("_")[0]
        folder.mkdir(exist_ok=True)
        file.rename(folder / file.name)
    return tones


def load(root, pattern=PATTERN, **options):
    return AudioFolder(str(root), pattern, **options).load(0)


def names(split):
    """Names of a split's files."""
    inputs, indices = split.inputs, range(len(split))
    if hasattr(inputs, "indices"):
        inputs, indices = inputs.dataset, inputs.indices
    return sorted(inputs.files[index].name for index in indices)


def test_class_folders_and_names_give_the_same_samples(tones, folders):
    data = load(folders, None, **HALVES)
    assert (data.modality, data.name, data.classes, data.channels) == ("audio", "tones", ("high", "low"), None)
    assert [len(split) for split in (data.train, data.val, data.test)] == [12, 4, 4]
    for file in folders.rglob("*.wav"):
        file.rename(tones / file.name)
    named = load(tones, PATTERN, **HALVES)
    for split in ("train", "val", "test"):
        assert names(getattr(named, split)) == names(getattr(data, split))
        assert torch.equal(getattr(named, split).labels, getattr(data, split).labels)
    assert named.train.labels.bincount().tolist() == [6, 6]


def test_official_folders_stay_whole(folders):
    for split, speaker in (("train", "ann"), ("test", "bob")):
        for label in ("high", "low"):
            (folders / split / label).mkdir(parents=True)
            for file in (folders / label).glob(f"*_{speaker}_*"):
                file.rename(folders / split / label / file.name)
    data = load(folders, None, val_fraction=0.4)
    assert [len(split) for split in (data.train, data.val, data.test)] == [6, 4, 10]
    assert all("bob" in name for name in names(data.test))


def test_parts_and_speakers_by_the_names(tones):
    data = load(tones, where={"speaker": ["bob"]}, test_where={"index": [0, 1]}, val_where={"index": 2})
    assert data.name == "tones (bob)"
    assert names(data.test) == ["high_bob_0.wav", "high_bob_1.wav", "low_bob_0.wav", "low_bob_1.wav"]
    assert names(data.val) == ["high_bob_2.wav", "low_bob_2.wav"]
    assert len(data.train) == 4
    assert load(tones, classes=["low", "high"], **HALVES).classes == ("low", "high")


def test_a_pattern_reaches_into_folders(folders):
    data = load(folders, r"(?P<label>\w+)/\w+_(?P<speaker>\w+)_\d", where={"speaker": "ann"}, **HALVES)
    assert data.classes == ("high", "low")
    assert sum(len(split) for split in (data.train, data.val, data.test)) == 10


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_every_format_is_read_in_mono_at_the_wanted_rate(tmp_path, ending):
    left, right = tone(200, 0.5, 16000), tone(200, 0.5, 16000) * 0.5
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(5):
            stereo = np.stack([left, right * (number + 1) / 5], 1)
            soundfile.write(tmp_path / label / f"{number}{label}.{ending}", stereo, 16000)
    data = load(tmp_path, None, **HALVES)
    inputs = data.train.inputs.dataset
    number = int(inputs.files[0].name[0]) + 1
    sound = inputs.read(0, 8000)
    assert sound.shape == (4000,)
    expected = torch.from_numpy(tone(200, 0.5, 8000)) * (1 + 0.5 * number / 5) / 2
    assert (sound - expected)[100:-100].abs().max() < 0.02


def test_copies_stay_on_one_side_and_are_noted(tones):
    for file in sorted(tones.glob("*_ann_*.wav")):
        (tones / file.name.replace("ann", "copy")).write_bytes(file.read_bytes())
    for seed in range(3):
        data = AudioFolder(str(tones), PATTERN, val_fraction=0.3, test_fraction=0.3).load(seed)
        assert data.notes == ("10 recordings occur more than once, 0 of them with different labels",)
        sides = [{name.replace("copy", "ann") for name in names(split)} for split in (data.train, data.val, data.test)]
        assert sum(map(len, sides)) == len(set.union(*sides)) == 20


def broken(file, kind):
    """Write a file that cannot be used."""
    if kind == "empty":
        file.write_bytes(b"")
    elif kind == "noise":
        file.write_bytes(b"this is no sound" * 10)
    elif kind == "silent":
        soundfile.write(file, np.zeros(0, dtype=np.float32), 8000)
    elif kind == "nan":
        soundfile.write(file, np.array([0.1, np.nan], dtype=np.float32), 8000, subtype="FLOAT")
    elif kind == "cut":
        soundfile.write(file.with_suffix(".flac"), np.random.default_rng(0).normal(0, 0.1, 20000), 8000)
        content = file.with_suffix(".flac").read_bytes()
        file.with_suffix(".flac").write_bytes(content[: len(content) // 2])


BAD_FILES = {
    "empty": "the file is empty",
    "noise": "it cannot be read as sound",
    "silent": "it has no sound in it",
    "nan": "it holds NaN or infinite values",
    "cut": "it cannot be read as sound",
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_named_or_skipped(tones, kind):
    broken(tones / "high_ann_9.wav", kind)
    with pytest.raises(GraftError, match=rf"data\.target: .*high_ann_9\.\w+: {BAD_FILES[kind]}.*on_bad_sample=skip"):
        load(tones, **HALVES)
    data = load(tones, on_bad_sample="skip", **HALVES)
    assert sum(len(split) for split in (data.train, data.val, data.test)) == 20
    [note] = data.notes
    assert note.startswith(f"skipped: 1 files ({tones / 'high_ann_9.'}")
    assert BAD_FILES[kind] in note


def test_a_name_that_does_not_fit_and_a_class_that_train_has_not(tones):
    soundfile.write(tones / "README.wav", tone(100), 8000)
    with pytest.raises(GraftError, match=r"README\.wav: its name does not fit data\.target\.pattern="):
        load(tones, **HALVES)
    assert len(load(tones, on_bad_sample="skip", **HALVES).train) == 12
    (tones / "README.wav").rename(tones / "middle_ann_0.wav")
    with pytest.raises(
        GraftError, match=r"middle_ann_0\.wav: its label 'middle' is not one of train's classes: high, low"
    ):
        load(tones, test_where={"index": [0]})
    assert len(load(tones, test_where={"index": [0]}, on_bad_sample="skip").test) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "(?P<label>"}, r"pattern=.*no regular expression"),
        ({"pattern": r"(\w+)"}, r"it has no group \(\?P<label>"),
        ({"where": {"room": [1]}}, r"where: the pattern has no group 'room'\. Groups: label, speaker, index"),
        ({"where": {"speaker": ["ann", "eve"]}}, r"where\.speaker: no file in .* has 'eve' there\. There is ann, bob"),
        ({"where": {"label": ["low"]}}, "every label is 'low', but at least 2 classes"),
        ({"test_where": {"index": [0, 1, 2, 3, 4]}}, "there are no files to train on"),
        ({"pattern": None, "where": {"speaker": ["ann"]}}, r"where: it chooses by the groups of data\.target\.pattern"),
        (
            {"pattern": None},
            r"no sub-folders of recordings there\. Give a folder for each class, or data\.target\.pattern",
        ),
        (
            {"classes": ["low", "high", "middle"]},
            r"classes: no training sample has the label 'middle', one of 3 classes\. Its labels are high, low",
        ),
        ({"test_fraction": 0.01}, "recordings are too few to split off a test split"),
    ],
)
def test_folders_that_cannot_be_used(tones, options, message):
    with pytest.raises(GraftError, match=message):
        load(tones, **options)


def test_folders_that_are_not_there_or_hold_nothing(tmp_path):
    with pytest.raises(GraftError, match=r"data\.target\.root=.*nowhere: no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(GraftError, match="no recordings there"):
        load(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(GraftError, match=r"no recordings in .*a"):
        load(tmp_path, None)


def test_without_soundfile_the_extra_is_named(tones, monkeypatch):
    recordings.imported_soundfile.cache_clear()
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(GraftError, match=r"read with soundfile.*pip install '\.\[speech\]'"):
        load(tones)
    recordings.imported_soundfile.cache_clear()


def test_content_decides_the_fingerprint(tones):
    before = load(tones, **HALVES).fingerprint
    assert load(tones, **HALVES).fingerprint == before
    soundfile.write(tones / "low_ann_0.wav", tone(77), 8000)
    assert load(tones, **HALVES).fingerprint != before


def test_links_folders_and_other_files_are_bad_or_counted(tones):
    (tones / "high_ann_7.wav").symlink_to(tones / "gone.wav")
    (tones / "high_ann_8.wav").mkdir()
    (tones / "notes.txt").write_text("none")
    with pytest.raises(GraftError, match=r"2 of 22 files cannot be used .*high_ann_7\.wav: .*high_ann_8\.wav: "):
        load(tones, **HALVES)
    report = load(tones, on_bad_sample="skip", **HALVES).report
    assert len(report.skipped) == 2
    assert report.left_out == {".txt files": 1}
    assert report.found == 23


@pytest.mark.parametrize("rate", [1, 2_000_000_000])
def test_a_rate_that_no_recording_has_is_a_bad_file(tones, rate):
    content = bytearray((tones / "high_ann_0.wav").read_bytes())
    content[24:28] = rate.to_bytes(4, "little")
    (tones / "high_ann_0.wav").write_bytes(content)
    with pytest.raises(GraftError, match=rf"high_ann_0\.wav: its header says {rate:,} samples a second"):
        load(tones, **HALVES)
    assert len(load(tones, on_bad_sample="skip", **HALVES).report.skipped) == 1


DATA = Path(os.environ.get("GRAFT_DATA", "../shared/data"))


@pytest.mark.real_data
def test_real_digits():
    if not (DATA / "fsdd").is_dir():
        pytest.skip(f"no spoken digits in {DATA}; set GRAFT_DATA")
    data = load(DATA / "fsdd", r"(?P<label>\d)_(?P<speaker>\w+)_(?P<index>\d+)", test_where={"index": range(5)})
    assert data.classes == tuple("0123456789")
    assert [len(split) for split in (data.train, data.val, data.test)] == [2295, 405, 300]
    assert data.test.labels.bincount().tolist() == [30] * 10
