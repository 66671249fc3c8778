import sys

import pytest
import torch

from graft.data.sources.synthetic_voices import SyntheticSpeech, Utterance, speak
from graft.errors import GraftError

WORDS = ["yes", "no", "stop"]
VOICES = ["en-us+m1", "en-us+f2"]


def load(**options):
    return SyntheticSpeech(**{"words": WORDS, "voices": VOICES, "samples": 12, **options}).load(0)


def test_words_are_classes_and_every_part_is_said_in_its_own_way():
    data = load()
    assert (data.modality, data.classes) == ("audio", tuple(WORDS))
    assert [len(split) for split in (data.train, data.val, data.test)] == [12, 6, 6]
    assert data.train.labels.bincount().tolist() == [4, 4, 4]
    said = [utterance for split in (data.train, data.val, data.test) for utterance in split.inputs.said]
    assert len(set(said)) == 24
    assert {utterance.voice for utterance in said} == set(VOICES)
    sounds = [data.train.inputs.read(index, 8000) for index in range(12)]
    assert all(1000 < len(sound) < 12000 for sound in sounds)
    assert all(0.05 < sound.abs().max() <= 1 for sound in sounds)


def test_the_same_settings_say_the_same_whatever_was_said_before():
    first, second = load(), load()
    assert first.fingerprint == second.fingerprint
    second.test.inputs.read(0, 8000)
    for index in (5, 0, 11):
        assert torch.equal(first.train.inputs.read(index, 8000), second.train.inputs.read(index, 8000))
    for changed in (load(seed=1), load(words=["yes", "no", "go"]), load(voices=VOICES[:1])):
        assert changed.fingerprint != first.fingerprint


def test_speed_and_voice_are_heard():
    [engine] = [load().train.inputs.engine]
    manners = [("en-us+m1", 120), ("en-us+m1", 200), ("en-us+f2", 120)]
    rate, (slow, fast, other) = speak([Utterance("seven", voice, speed, 50, 50) for voice, speed in manners], engine)
    assert rate == 22050
    assert len(slow) > 1.3 * len(fast)
    assert len(other) != len(slow) or not (other == slow).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"words": ["yes"]}, r"data\.target\.words=\['yes'\]: at least 2 words"),
        ({"words": ["yes", "yes"]}, "at least 2 words, each once"),
        ({"voices": []}, r"data\.target\.voices=\[\]: at least 1 voice"),
        ({"voices": ["en-us+nobody"]}, "there is no variant 'nobody'. Known: .*f1"),
        ({"samples": 10**6}, r"data\.target\.samples=1000000: 2 voices say 3 words in no more than"),
    ],
)
def test_what_cannot_be_said(options, message):
    with pytest.raises(GraftError, match=message):
        load(**options)


def test_an_unknown_language_is_named():
    data = load(voices=["xx"])
    with pytest.raises(GraftError, match="espeak-ng has no voice 'xx'"):
        data.train.inputs.read(0, 8000)


def test_without_the_engine_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(GraftError, match=r"espeak-ng, which is not installed.*pip install '\.\[speech\]'"):
        load()


def test_held_out_voices_say_the_test_split_and_change_no_other():
    plain, held = (load(held_out_voices=voices) for voices in ((), ("en-gb-scotland+f2",)))
    for split in ("train", "val"):
        assert getattr(plain, split).inputs.said == getattr(held, split).inputs.said
    assert {one.voice for one in held.test.inputs.said} == {"en-gb-scotland+f2"}
    assert {one.text for one in held.test.inputs.said} == set(WORDS)
    assert plain.fingerprint != held.fingerprint
    with pytest.raises(GraftError, match="says training samples too"):
        load(held_out_voices=VOICES[:1])
