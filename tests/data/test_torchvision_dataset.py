import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from graft.data.samples import Split
from graft.data.sources.torchvision import TorchvisionDataset, images_of, labels_of
from graft.errors import GraftError

DATA = Path(os.environ.get("GRAFT_DATA", "../shared/data")) / "torchvision"
RANDOM = np.random.default_rng(0)


def photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(path)


def counts(data):
    return [len(split) for split in (data.train, data.val, data.test)]


def files(split: Split):
    return set(split.inputs.indices) if hasattr(split.inputs, "indices") else None


@pytest.fixture
def pets(tmp_path):
    """OxfordIIITPet, whose splits are called trainval and test, in miniature."""
    base = tmp_path / "oxford-iiit-pet"
    for split, number in (("trainval", 20), ("test", 6)):
        lines = []
        for i in range(number):
            name = f"{('Beagle', 'Sphynx')[i % 2]}_{split}{i}"
            photo(base / "images" / f"{name}.jpg")
            lines.append(f"{name} {i % 2 + 1} 1 1")
        (base / "annotations").mkdir(exist_ok=True)
        (base / "annotations" / f"{split}.txt").write_text("\n".join(lines))
    return tmp_path


def test_validation_comes_from_train_and_the_test_part_stays_whole(pets):
    data = TorchvisionDataset("OxfordIIITPet", str(pets), val_fraction=0.2).load(0)
    assert counts(data) == [16, 4, 6]
    assert data.classes == ("Beagle", "Sphynx")
    assert data.test.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert data.val.labels.bincount().tolist() == [2, 2]
    assert not files(data.train) & files(data.val)
    assert data.train.inputs[0].shape == (3, 9, 12)


def test_path_based_images_are_not_decoded_by_loading(pets):
    for path in (pets / "oxford-iiit-pet" / "images").iterdir():
        path.write_bytes(path.name.encode())  # no image any more
    assert counts(TorchvisionDataset("OxfordIIITPet", str(pets), val_fraction=0.2).load(0)) == [16, 4, 6]


def test_fingerprint_follows_the_files(pets):
    before = TorchvisionDataset("OxfordIIITPet", str(pets)).fingerprint
    assert before == TorchvisionDataset("OxfordIIITPet", str(pets)).fingerprint
    photo(pets / "oxford-iiit-pet" / "images" / "Beagle_test0.jpg")
    assert before != TorchvisionDataset("OxfordIIITPet", str(pets)).fingerprint


def test_official_validation_part_is_kept(tmp_path):
    for split, number in (("train", 5), ("valid", 3), ("test", 4)):
        for country in ("AD", "ZW"):
            for i in range(number):
                photo(tmp_path / "country211" / split / country / f"{i}.jpg")
    assert counts(TorchvisionDataset("Country211", str(tmp_path)).load(0)) == [10, 6, 8]


def test_an_official_validation_split_alone_is_the_test_split(tmp_path):
    for split, number in (("train", 10), ("val", 3)):
        for wnid in ("n01440764", "n02102040"):
            for i in range(number):
                photo(tmp_path / "imagenette2" / split / wnid / f"{i}.JPEG")
    data = TorchvisionDataset("Imagenette", str(tmp_path), val_fraction=0.2).load(0)
    assert counts(data) == [16, 4, 6]
    assert data.classes[0] == "tench"


def test_a_data_set_without_parts_is_split_by_seed(tmp_path):
    for name in ("Forest", "River"):
        for i in range(20):
            photo(tmp_path / "eurosat" / "2750" / name / f"{name}_{i}.jpg")
    data = TorchvisionDataset("EuroSAT", str(tmp_path)).load(0)
    assert counts(data) == [28, 4, 8]
    assert data.classes == ("Forest", "River")
    other = TorchvisionDataset("EuroSAT", str(tmp_path)).load(1)
    assert files(other.test) != files(data.test)


class InMemory(torch.utils.data.Dataset):
    def __init__(self, data, mode):
        self.data, self.mode, self.targets = data, mode, [0, 1]

    def __len__(self):
        return 2

    def __getitem__(self, i):
        image = self.data[i]
        if self.mode == "CHW":
            image = image.transpose(1, 2, 0)
        return Image.fromarray(np.asarray(image)), self.targets[i]


@pytest.mark.parametrize("mode", ["HW", "HWC", "CHW"])
def test_every_layout_in_memory_becomes_the_same_tensor(mode):
    colour = RANDOM.integers(0, 256, (2, 3, 3, 3), dtype=np.uint8)  # a shape that does not tell the layout
    data = {"HW": colour[..., 0], "HWC": colour, "CHW": colour.transpose(0, 3, 1, 2)}[mode]
    expected = torch.from_numpy(colour[..., :1] if mode == "HW" else colour).permute(0, 3, 1, 2)
    assert torch.equal(images_of(InMemory(data, mode)), expected)
    assert labels_of(InMemory(data, mode)) == [0, 1]


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("FashionMNIST", "FashionMNIST/raw"),
        ("CIFAR10", "cifar-10-batches-py"),
        ("Flowers102", "flowers-102"),
        ("EuroSAT", "eurosat"),
        ("USPS", ""),
    ],
)
def test_missing_files_say_where_they_belong_and_how_to_fetch_them(tmp_path, name, folder):
    domain = TorchvisionDataset(name, str(tmp_path))
    domain.key = "data.source"
    with pytest.raises(GraftError) as error:
        domain.load(0)
    assert f"expects its files in {tmp_path / folder}." in str(error.value)
    assert "data.source.download=true" in str(error.value)


def test_unknown_name_lists_the_closest():
    with pytest.raises(GraftError, match=r"'Mnist' is no class .* Closest: MNIST"):
        TorchvisionDataset("Mnist", "x").load(0)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "sizes", "shape"),
    [("MNIST", [54000, 6000, 10000], (1, 28, 28)), ("USPS", [6562, 729, 2007], (1, 16, 16))],
)
def test_real_digits(name, sizes, shape):
    if not DATA.is_dir():
        pytest.skip(f"no data in {DATA}; set GRAFT_DATA")
    data = TorchvisionDataset(name, str(DATA)).load(0)
    assert counts(data) == sizes
    assert data.train.inputs[0].shape == shape
    assert data.classes == tuple("0123456789")
