"""Small domains and input specs for the data tests."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from graft.data.domain import Domain
from graft.data.samples import DomainData, Split
from graft.inputs.image.transform import ImageSpec


class Numbers(Domain):
    """Images whose top-left pixel is the sample's number, to see which ones a batch holds."""

    def __init__(self, train=20, classes=2, first=0, size=8):
        self.counts = {"train": train, "val": 7, "test": 9}
        self.names = tuple(str(c) for c in range(classes))
        self.first = first
        self.size = size

    @property
    def fingerprint(self):
        return f"numbers-{self.counts}"

    def load(self, split_seed, fold=None):
        splits = {}
        for name, count in self.counts.items():
            images = torch.zeros(count, 1, self.size, self.size, dtype=torch.uint8)
            images[:, 0] = (self.first + torch.arange(count, dtype=torch.uint8))[:, None, None]
            splits[name] = Split(
                images, torch.arange(count) % len(self.names), f"{self.fingerprint}/{self.first}/{name}"
            )
        return DomainData(name="numbers", classes=self.names, channels=1, fingerprint=self.fingerprint, **splits)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def spec():
    return ImageSpec(channels=1, size=(8, 8), mean=(0.0,), std=(1.0,))


@pytest.fixture
def photos(tmp_path) -> Path:
    """3 classes of 10 photos, each of another colour."""
    root = tmp_path / "my photos"
    random = np.random.default_rng(0)
    for name in ("cat", "dog", "eel"):
        (root / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root
