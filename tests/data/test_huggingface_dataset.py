"""A stand-in for the datasets library, which is an extra; it gives what the library would."""

import sys
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from graft.data import huggingface_dataset
from graft.data.huggingface_dataset import HuggingFaceDataset
from graft.errors import GraftError


class Part(dict):
    """Columns by name, and their features."""

    def __init__(self, labels, names=("bad", "good"), text="text"):
        super().__init__({text: [f"film {n} of {len(labels)}" for n in range(len(labels))], "label": labels})
        self.features = {text: None, "label": SimpleNamespace(names=names)}


@pytest.fixture
def library(monkeypatch):
    """The parts that the library would find, to be filled by a test."""
    parts = {}

    def load_dataset(name, config):
        if not parts:
            raise ConnectionError("nobody answers\nat all")
        return parts

    fake = SimpleNamespace(
        load_dataset=load_dataset,
        load_from_disk=lambda folder: parts,
        disable_progress_bars=lambda: None,
        config=SimpleNamespace(HF_HUB_OFFLINE=False),
    )
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # put back after the test
    monkeypatch.setattr(huggingface_dataset, "hub_answers", lambda: False)
    return parts


def test_official_parts_and_class_names_are_kept_and_what_has_no_labels_is_left_out(library):
    library |= {"train": Part([0, 1] * 10), "validation": Part([1, 0, 1]), "test": Part([-1, -1])}
    data = HuggingFaceDataset("glue", "sst2").load(0)
    assert (data.name, data.kind, data.classes) == ("glue/sst2", "text", ("bad", "good"))
    assert [len(split) for split in (data.train, data.val, data.test)] == [17, 3, 3]
    assert data.val.labels.tolist() == [1, 0, 1]


def test_a_missing_label_is_named(library):
    library["train"] = Part([0, 1, None, 0, 1])
    with pytest.raises(GraftError, match=r"reviews/train, row 3: its label is missing"):
        HuggingFaceDataset("reviews").load(0)


def test_columns_and_parts_that_are_not_there_are_named(library):
    library["train"] = Part([0, 1], text="sentence")
    with pytest.raises(
        GraftError, match=r"data\.target\.text=text: reviews has no such column; it has sentence, label"
    ):
        HuggingFaceDataset("reviews").load(0)
    library.clear()
    library["all"] = Part([0, 1])
    with pytest.raises(GraftError, match=r"it has no part `train`, but all"):
        HuggingFaceDataset("reviews").load(0)


def test_without_network_and_without_the_library_it_says_what_to_do(library, monkeypatch):
    with pytest.raises(
        GraftError, match=r"data\.target\.name=reviews: it is not on .*\(nobody answers\)\. Give a folder"
    ):
        HuggingFaceDataset("reviews").load(0)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(GraftError, match=r"needs the datasets library .*pip install"):
        HuggingFaceDataset("reviews").load(0)
