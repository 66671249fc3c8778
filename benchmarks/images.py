"""The images that the rows are measured on: kept in a file, so that all contestants read the same."""

import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.datasets import MNIST
from torchvision.models import resnet18

from graft.data.domain import Domain
from graft.data.folds import Fold
from graft.data.samples import DomainData, Split, generator, sha256
from graft.data.sources.glyphs import render

Arrays = tuple[Tensor, Tensor]  # of a split: images uint8 (N, C, H, W), labels int64 (N,)
PHOTO_SIDE = 128  # pixels of a rendered photo
FEW = 64  # images of a split that only has to be there


class Stored(Domain):
    """A target whose images come from a file of `store`, all in memory."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def load(self, split_seed: int, fold: Fold | None = None) -> DomainData:
        """The splits as they were stored."""
        splits = load(self.file)
        classes = int(splits["train"][1].max()) + 1
        return DomainData(
            name="stored",
            classes=tuple(map(str, range(classes))),
            channels=splits["train"][0].shape[1],
            fingerprint=self.fingerprint,
            **{name: Split(*arrays, f"{self.fingerprint}/{name}") for name, arrays in splits.items()},
        )

    @property
    def fingerprint(self) -> str:
        """Hash of the file."""
        return sha256([self.file.read_bytes()])


def load(file: Path) -> dict[str, Arrays]:
    """The splits `train`, `val` and `test` of a file of `store`."""
    return torch.load(file, weights_only=True)


def store(file: Path, train: Arrays, val: Arrays, test: Arrays) -> Path:
    """Write three splits to a file."""
    torch.save({"train": train, "val": val, "test": test}, file)
    return file


def normalised(images: Tensor) -> Tensor:
    """Images uint8 to what a network without pretrained weights sees, float in [-1, 1]."""
    return images.float().div_(127.5).sub_(1)


def digits(file: Path, samples: int) -> str:
    """Store handwritten digits 28x28 and return what they are: MNIST where there is some, else rendered ones."""
    root = Path(os.environ.get("GRAFT_DATA", "data")) / "torchvision"
    try:
        mnist = MNIST(str(root), train=True)
        name, images, labels = "MNIST", mnist.data.unsqueeze(1), mnist.targets
    except RuntimeError:
        name, labels = "rendered digits", torch.arange(samples + 2 * FEW) % 10
        images = render(labels, size=28, block=1, seed="benchmark")
    cuts = [0, samples, samples + FEW, samples + 2 * FEW]
    store(file, *((images[a:b].contiguous(), labels[a:b]) for a, b in pairwise(cuts)))
    return name


def patches(file: Path, samples: int, side: int, classes: int = 5, channels: int = 3, val: int = FEW) -> Path:
    """Store images of random patches, coarse enough to look like something, with a colour that tells the class."""
    random = generator("benchmark", side, classes)
    colours = torch.randint(0, 128, (classes, channels, 1, 1), generator=random, dtype=torch.uint8)

    def arrays(count: int) -> Arrays:
        labels = torch.arange(count) % classes
        noise = torch.randint(0, 128, (count, channels, -(-side // 8), -(-side // 8)), generator=random)
        images = noise.to(torch.uint8).repeat_interleave(8, 2).repeat_interleave(8, 3)[..., :side, :side]
        return (images + colours[labels]).contiguous(), labels

    return store(file, arrays(samples), arrays(max(val, classes)), arrays(max(FEW, classes)))


def photos(folder: Path, train: int, few: int = 50) -> str:
    """Write JPEGs, a folder a class under train/, val/ and test/, and return what they are.

    They are flowers of $GRAFT_DATA/flowers5, 128x128, where there are enough, else rendered ones of the same size.
    """
    sizes = {"train": train, "val": few, "test": few}
    files = flowers()
    if len(files) >= sum(sizes.values()):
        for split, size in sizes.items():
            for _ in range(size):
                source = files.pop()
                copy = folder / split / source.parent.name / source.name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
        return "flowers5"
    random = np.random.default_rng(0)
    for split, size in sizes.items():
        for number in range(size):
            file = folder / split / f"class{number % 5}" / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=np.uint8))
            coarse.resize((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.BICUBIC).save(file, quality=90)
    return "rendered JPEGs"


def flowers() -> list[Path]:
    """The files of flowers5, the classes mixed so that every beginning of the list has all of them."""
    files = sorted((Path(os.environ.get("GRAFT_DATA", "data")) / "flowers5").glob("*/*.jpg"))
    order = np.random.default_rng(0).permutation(len(files))
    return [files[index] for index in order]


def resnet18_weights(file: Path) -> Path:
    """A ResNet-18 with random weights as a file for `backbone.weights`: the costs do not depend on them."""
    torch.manual_seed(0)
    network: nn.Module = resnet18()
    torch.save(network.state_dict(), file)
    return file
