import gzip
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.datasets import mnist

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


@pytest.mark.parametrize("split", ["trainval", "test"])
def test_a_broken_image_is_found_before_training_in_every_split(pets, split):
    path = pets / "oxford-iiit-pet" / "images" / f"Beagle_{split}0.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(GraftError, match=rf"1 of 26 images cannot be used \(.*Beagle_{split}0\.jpg: it cannot be read"):
        TorchvisionDataset("OxfordIIITPet", str(pets)).load(0)
    data = TorchvisionDataset("OxfordIIITPet", str(pets), val_fraction=0.2, on_bad_sample="skip").load(0)
    assert sum(counts(data)) == 25
    assert [one["split"] for one in data.report.skipped] == [split.removesuffix("val")]


def test_copies_of_test_images_in_train_are_noted(pets):
    images = pets / "oxford-iiit-pet" / "images"
    for i in (0, 2, 4):
        shutil.copy(images / f"Beagle_test{i}.jpg", images / f"Beagle_trainval{i}.jpg")
    data = TorchvisionDataset("OxfordIIITPet", str(pets)).load(0)
    assert "3 images of test are in train too" in data.notes


def test_fingerprint_follows_the_files(pets):
    def fingerprint():
        return TorchvisionDataset("OxfordIIITPet", str(pets)).load(0).fingerprint

    before = fingerprint()
    assert before == fingerprint()
    photo(pets / "oxford-iiit-pet" / "images" / "Beagle_test0.jpg")
    assert before != fingerprint()


def idx(values):
    """An array as MNIST's files hold it."""
    head = (0x0800 + values.ndim).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in values.shape)
    return head + values.astype(np.uint8).tobytes()


@pytest.fixture
def raw_digits(tmp_path, monkeypatch):
    """A writer of MNIST's and EMNIST's files in miniature."""
    monkeypatch.setattr(mnist, "check_integrity", lambda path, md5=None: Path(path).is_file())

    def write(folder, prefix, names, first=0, packed=False):
        raw = tmp_path / folder / "raw"
        raw.mkdir(parents=True)
        for split, number in zip(names, (40, 10), strict=True):
            images = RANDOM.integers(0, 256, (number, 28, 28))
            for kind, values in (("images-idx3", images), ("labels-idx1", first + np.arange(number) % 10)):
                path = raw / f"{prefix}{split}-{kind}-ubyte{'.gz' if packed else ''}"
                path.write_bytes(gzip.compress(idx(values)) if packed else idx(values))
        return str(tmp_path)

    return write


def test_emnist_takes_its_split_as_an_option_and_says_so(raw_digits):
    root = raw_digits("EMNIST", "emnist-letters-", ("train", "test"), first=1)
    with pytest.raises(
        GraftError, match=r"data\.target\.options\.split: EMNIST needs it\. Allowed: byclass, .*letters"
    ):
        TorchvisionDataset("EMNIST", root, options={"split": None}).load(0)
    data = TorchvisionDataset("EMNIST", root, options={"split": "letters"}).load(0)
    assert counts(data) == [36, 4, 10]
    assert data.classes == tuple("abcdefghijklmnopqrstuvwxyz")
    assert data.test.labels.tolist() == list(range(10))
    assert "left out, torchvision's class 'N/A' has no image" in data.notes


def test_packed_files_that_lie_there_are_unpacked(raw_digits):
    root = raw_digits("MNIST", "", ("train", "t10k"), packed=True)
    assert counts(TorchvisionDataset("MNIST", root).load(0)) == [36, 4, 10]


def test_an_archive_that_lies_there_is_named(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    with pytest.raises(
        GraftError, match=r"Unpack .*cifar-10-python\.tar\.gz there, or set data\.target\.download=true"
    ):
        TorchvisionDataset("CIFAR10", str(tmp_path)).load(0)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("CIFAR10", {"split": "test"}, r"options\.split: no such option of CIFAR10\. Allowed: none"),
        ("SVHN", {"split": "extra"}, r"options\.split: no such option of SVHN"),
        ("Imagenette", {"size": "17px"}, r"options\.size=17px: Imagenette refuses it|Imagenette: Unknown value '17px'"),
    ],
)
def test_options_are_checked(tmp_path, name, options, said):
    with pytest.raises(GraftError, match=said):
        TorchvisionDataset(name, str(tmp_path), options=options).load(0)


@pytest.mark.parametrize("name", [*datasets.__all__])
def test_every_class_is_read_or_refused_by_name(tmp_path, name):
    with pytest.raises(GraftError, match=rf"data\.target\.(name='?{name}|options)"):
        TorchvisionDataset(name, str(tmp_path)).load(0)


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
