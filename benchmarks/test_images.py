"""The images that rows are measured on."""

import torch

from benchmarks import images
from benchmarks.networks import build, wide


def test_stored_patches_come_back_as_a_domain(tmp_path):
    file = images.patches(tmp_path / "patches.pt", 40, side=20, classes=4, val=8)
    data = images.Stored(str(file)).load(0)
    assert data.train.inputs.shape == (40, 3, 20, 20)
    assert data.train.inputs.dtype == torch.uint8
    assert (len(data.val), data.classes, data.channels) == (8, ("0", "1", "2", "3"), 3)
    assert data.fingerprint == images.Stored(str(file)).fingerprint


def test_digits_are_rendered_where_there_is_no_mnist(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAFT_DATA", str(tmp_path))
    assert images.digits(tmp_path / "digits.pt", 30) == "rendered digits"
    parts = images.load(tmp_path / "digits.pt")
    assert parts["train"][0].shape == (30, 1, 28, 28)
    assert len(parts["val"][1]) == len(parts["test"][1]) == images.FEW


def test_photos_are_written_where_there_are_no_flowers(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAFT_DATA", str(tmp_path / "nothing"))
    assert images.photos(tmp_path / "photos", train=10, few=5) == "rendered JPEGs"
    counts = {part: len(list((tmp_path / "photos" / part).glob("*/*.jpg"))) for part in ("train", "val", "test")}
    assert counts == {"train": 10, "val": 5, "test": 5}


def test_networks_have_the_outputs_of_their_data():
    assert build("lenet").eval()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert wide("wide", size=8, channels=1, features=6)(torch.zeros(2, 1, 8, 8)).shape == (2, 6)
