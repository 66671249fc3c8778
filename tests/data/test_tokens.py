import re

import pytest
import torch

from graft.backbones.huggingface import HuggingFaceBackbone
from graft.backbones.vocabulary import Vocabulary
from graft.cache.disk import DiskCache
from graft.data.samples import Split
from graft.errors import GraftError
from graft.inputs.image import decoded
from graft.inputs.text import TextSpec, TextTransform

TEXTS = ["good film", "it was a very very very bad film", "not good"]
ALL = torch.arange(3)


@pytest.fixture
def spec(tiny_bert):
    return HuggingFaceBackbone(str(tiny_bert), max_length=6).input_spec


@pytest.fixture
def cache(tmp_path):
    return DiskCache(tmp_path / "cache", 2**20)


def split(texts=TEXTS):
    return Split(texts, torch.zeros(len(texts), dtype=torch.int64), "-".join(texts))


def test_the_mask_is_one_exactly_on_the_tokens_of_a_text(spec):
    transform = spec.transform()
    fields = transform.collate(transform.prepare(split(), None)[torch.tensor([2, 0, 1])])
    assert fields["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0], [1] * 6]
    assert fields["input_ids"].tolist() == [[2, 8, 4, 3, 0, 0], [2, 4, 6, 3, 0, 0], [2, 11, 13, 10, 9, 3]]


def test_a_batch_is_as_long_as_its_longest_text(spec):
    transform = spec.transform()
    assert transform.collate(transform.prepare(split(), None)[torch.tensor([0])])["input_ids"].shape == (1, 4)


def test_tokens_are_kept_and_read_again_as_they_were(spec, cache, monkeypatch):
    transform = spec.transform()
    made = transform.prepare(split(), cache)
    monkeypatch.setattr(TextTransform, "_tokens", lambda *_: pytest.fail("split into tokens again"))
    again = spec.transform().prepare(split(), cache)
    expected = [[2, 4, 6, 3], [2, 11, 13, 10, 9, 3], [2, 8, 4, 3]]
    assert [ids.tolist() for ids in made[ALL]] == [ids.tolist() for ids in again[ALL]] == expected
    assert again.lengths.tolist() == [4, 6, 4]


def test_other_texts_and_other_lengths_have_entries_of_their_own(spec, tiny_bert, cache):
    longer = HuggingFaceBackbone(str(tiny_bert), max_length=12).input_spec
    for one, texts in ((spec, TEXTS), (spec, TEXTS[:2]), (longer, TEXTS)):
        one.transform().prepare(split(texts), cache)
    assert len([path for path in cache.folder.iterdir() if path.name != "locks"]) == 3


@pytest.mark.parametrize("cached", [False, True])
def test_cut_texts_are_counted_in_one_line(spec, cache, capsys, cached):
    decoded.say_once.cache_clear()
    for _ in range(2):
        spec.transform().prepare(split(), cache if cached else None)
    line = "1 of 3 texts (33.33%) have more than backbone.max_length=6 tokens: what comes after them is left out\n"
    assert capsys.readouterr().out == line


def test_without_room_texts_are_split_in_memory(spec, tmp_path, capsys):
    decoded.say_once.cache_clear()
    rows = spec.transform().prepare(split(), DiskCache(tmp_path / "cache", 1))
    assert [len(ids) for ids in rows[ALL]] == [4, 6, 4]
    assert "cannot be kept" in capsys.readouterr().out


def test_augmentation_and_shifts_are_refused(spec):
    with pytest.raises(GraftError, match=r"data\.augment=light: texts are taken as they are"):
        spec.transform("light")
    with pytest.raises(GraftError, match=r"data\.test_shifts=\[blur\]"):
        spec.transform(shift="blur")


def test_many_unknown_tokens_are_said_with_the_keys_that_help(capsys):
    decoded.say_once.cache_clear()
    transform = TextSpec(Vocabulary(TEXTS), 8).transform()
    transform.prepare(split(), None)
    assert capsys.readouterr().out == ""
    transform.prepare(split(["nothing of this", "was seen before"]), None)
    assert re.search(r"83% of the tokens of 2 texts are unknown .*backbone\.max_words", capsys.readouterr().out)
