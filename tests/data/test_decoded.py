import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from graft.cache.disk import DiskCache
from graft.data.readers import images
from graft.data.readers.images import Decodings, decode
from graft.data.samples import LazyTensor, Split
from graft.data.sources.image_folder import ImageFolder
from graft.errors import GraftError
from graft.inputs.image import decoded
from graft.inputs.image.decoded import LazyImages, LazyResize, resized_images
from graft.inputs.image.geometry import Geometry
from graft.inputs.image.transform import AUGMENTATIONS

ALL = torch.arange(12)
FLOWERS = Path(os.environ.get("GRAFT_DATA", "../shared/data")) / "flowers5"


@pytest.fixture
def folder(tmp_path):
    """Two classes of photos of different sizes, some of them large JPEGs."""
    root, random = tmp_path / "sizes", np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(10):
            height, width = random.integers(60, 200, 2) if i else (900, 1300)
            pixels = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8))
            pixels.resize((width, height)).save(root / name / f"{i}.jpg")
    return root


def training_split(folder) -> Split:
    train = ImageFolder(str(folder), val_fraction=0.2, test_fraction=0.2).load(0).train
    assert len(train) == len(ALL)
    return train


def cache_in(path, limit=2**30):
    return DiskCache(path / "cache", limit)


def entries(path):
    return [entry for entry in (path / "cache").iterdir() if entry.name != "locks"]


def never(*_):
    raise AssertionError("decoded again")


@pytest.mark.parametrize("size", [32, 96])
@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_what_is_kept_is_what_decoding_gives(folder, tmp_path, augment, size, monkeypatch):
    geometry = Geometry((size, size), augment)
    uncached = resized_images(training_split(folder), geometry, None)
    assert isinstance(uncached, LazyImages)
    resized_images(training_split(folder), geometry, cache_in(tmp_path))
    monkeypatch.setattr(decoded, "decode_all", never)
    cached = resized_images(training_split(folder), geometry, cache_in(tmp_path))
    indices = ALL.flip(0)
    assert all(torch.equal(a, b) for a, b in zip(cached[indices], uncached[indices], strict=True))
    assert type(cached[indices]) is type(uncached[indices])


def test_another_part_and_another_geometry_are_kept_apart(folder, tmp_path):
    train = training_split(folder)
    for split in (train, train, train.subset(torch.tensor([1, 2])), train.subset(torch.tensor([2, 1]))):
        resized_images(split, Geometry((96, 96)), cache_in(tmp_path))
    assert len(entries(tmp_path)) == 3
    resized_images(train, Geometry((96, 96), "crop"), cache_in(tmp_path))
    assert len(entries(tmp_path)) == 4


def test_a_changed_file_is_decoded_again(folder, tmp_path):
    geometry = Geometry((32, 32))
    resized_images(training_split(folder), geometry, cache_in(tmp_path))
    Image.new("RGB", (50, 60), "red").save(folder / "cat" / "3.jpg")
    train = training_split(folder)
    assert torch.equal(
        resized_images(train, geometry, cache_in(tmp_path))[ALL], resized_images(train, geometry, None)[ALL]
    )


def test_a_broken_file_is_named_and_nothing_is_kept(folder, tmp_path):
    train = training_split(folder)
    file = train.inputs.dataset.files[train.inputs.indices[5]]
    file.write_bytes(b"no image")
    train.inputs.dataset.decodings = Decodings()  # as in a run whose looks are in the cache
    with pytest.raises(GraftError, match=rf"{file.name} cannot be read as an image"):
        resized_images(train, Geometry((96, 96)), cache_in(tmp_path))
    assert entries(tmp_path) == []


@pytest.mark.parametrize("augment", ["none", "light"])
@pytest.mark.parametrize("reason", ["limit", "folder"])
def test_where_they_cannot_be_kept_images_are_decoded_as_they_are_drawn(folder, tmp_path, capsys, reason, augment):
    decoded.say_once.cache_clear()
    if reason == "folder":
        (tmp_path / "cache").write_text("no folder")
    cache = cache_in(tmp_path, limit=1000 if reason == "limit" else 2**30)
    for _ in range(2):
        rows = resized_images(training_split(folder), Geometry((96, 96), augment), cache)
        assert isinstance(rows, LazyImages)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Images are decoded anew in every epoch, because they cannot be kept")
    assert ("cache.limit_gb" if reason == "limit" else str(tmp_path / "cache")) in line


def test_many_images_are_announced(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(decoded, "MANY", 12)
    for _ in range(2):
        resized_images(training_split(folder), Geometry((96, 96)), cache_in(tmp_path))
    assert capsys.readouterr().out == f"Decoding 12 images, kept in {tmp_path / 'cache'}\n"


@pytest.mark.parametrize("augment", ["none", "light"])
def test_concurrent_jobs_share_one_entry(folder, tmp_path, augment):
    geometry = Geometry((96, 96), augment)
    split = training_split(folder)
    with ThreadPoolExecutor(3) as jobs:  # the lock is one between processes and threads alike
        started = [jobs.submit(resized_images, split, geometry, cache_in(tmp_path)) for _ in range(3)]
    expected = resized_images(split, geometry, None)[ALL]
    for job in started:
        assert all(torch.equal(a, b) for a, b in zip(job.result()[ALL], expected, strict=True))
    assert len(entries(tmp_path)) == 1


def test_the_kept_images_outlive_the_files(folder, tmp_path):
    """A job that runs while the cache is emptied, or the photos are moved, goes on."""
    rows = resized_images(training_split(folder), Geometry((96, 96)), cache_in(tmp_path))
    before = rows[ALL]
    shutil.rmtree(folder)
    shutil.rmtree(tmp_path / "cache")
    assert torch.equal(rows[ALL], before)


@pytest.mark.parametrize("lazy", [True, False])
def test_images_in_memory_are_resized_once(lazy, monkeypatch):
    images = torch.randint(0, 256, (300, 1, 8, 8), dtype=torch.uint8)
    split = Split(LazyTensor(300, lambda: images) if lazy else images, None, "images")
    geometry = Geometry((32, 32))
    rows = resized_images(split, geometry, None)
    assert torch.equal(rows, geometry(images))
    assert resized_images(split, Geometry((8, 8)), None) is images
    monkeypatch.setattr(decoded, "IN_MEMORY", 300 * 32 * 32 - 1)
    later = resized_images(split, geometry, None)
    assert isinstance(later, LazyResize)
    assert torch.equal(later[ALL], rows[ALL])


def test_large_jpegs_are_decoded_smaller_and_others_whole(folder):
    files = ImageFolder(str(folder)).load(0).train.inputs.dataset
    sizes = [tuple(files.read(i, shorter=110).shape[-2:]) for i in range(len(files))]
    whole = [tuple(files[i].shape[-2:]) for i in range(len(files))]
    assert {size for size, full in zip(sizes, whole, strict=True) if full == (900, 1300)} == {(225, 325)}
    assert [size for size, full in zip(sizes, whole, strict=True) if full != (900, 1300) and size != full] == []


@pytest.mark.real_data
@pytest.mark.parametrize("augment", ["none", "crop", "light"])
def test_real_photos_are_kept_as_they_are_decoded(tmp_path, augment):
    if not FLOWERS.is_dir():
        pytest.skip(f"no data in {FLOWERS}; set GRAFT_DATA")
    test = ImageFolder(str(FLOWERS)).load(0).test
    cached, uncached = (resized_images(test, Geometry((96, 96), augment), c) for c in (cache_in(tmp_path), None))
    drawn = torch.arange(0, len(test), 20)
    assert all(torch.equal(a, b) for a, b in zip(cached[drawn], uncached[drawn], strict=True))


def test_a_look_that_decodes_all_of_a_small_image_is_its_only_decoding(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    for number, side in enumerate((40, 60, 120, 300)):
        for name in ("cat", "dog"):
            (tmp_path / "few" / name).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(random.integers(0, 256, (side, side + 20, 3), dtype=np.uint8))
            exif = image.getexif()
            exif[274] = 6  # lies on its side
            image.save(tmp_path / "few" / name / f"{number}.jpg", exif=exif)
    files = ImageFolder(str(tmp_path / "few"), val_fraction=0.25, test_fraction=0.25).load(0).train.inputs.dataset
    expected = [decode(file, shorter=28) for file in files.files]
    opened = []

    def counted(file, channels, shorter, pixel_range):
        opened.append(file.name)
        return decode(file, channels, shorter, pixel_range)

    monkeypatch.setattr(images, "decode", counted)
    for index, image in enumerate(expected):
        assert torch.equal(files.read(index, 28), image)
    assert opened == ["2.jpg", "3.jpg"] * 2  # a half and a quarter of their size are enough
    for index, image in enumerate(expected):
        assert torch.equal(files.read(index, 28), image)
    assert len(opened) == 4 + 8
