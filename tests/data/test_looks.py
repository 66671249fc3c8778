import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from graft.cache.disk import DiskCache
from graft.data.readers import labelled_images, looks
from graft.data.sources import torchvision
from graft.data.sources.image_arrays import ImageArrays
from graft.data.sources.image_folder import ImageFolder
from graft.data.sources.torchvision import TorchvisionDataset
from graft.errors import GraftError


def folder_of(root, number=30, side=40):
    random = np.random.default_rng(0)
    for index in range(number):
        folder = root / ("cat", "dog")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        small.resize((side, side)).save(folder / f"{index:02}.png")
    return root


def load(root, cache, **settings):
    domain = ImageFolder(str(root), **settings)
    domain.cache = cache
    return domain.load(0)


def entry_of(cache):
    (entry,) = (path for path in cache.folder.iterdir() if path.name != "locks")
    return entry


@pytest.fixture
def cache(tmp_path):
    return DiskCache(tmp_path / "cache", 2**30)


@pytest.fixture
def looked_at(monkeypatch):
    """Names of the files that are opened to look into them."""
    names, look_into = [], labelled_images.look_into

    def counted(path, channels):
        names.append(path.name)
        return look_into(path, channels)

    monkeypatch.setattr(labelled_images, "look_into", counted)
    return names


def same(one, other):
    return (one.fingerprint, one.notes, one.report) == (other.fingerprint, other.notes, other.report)


def test_a_second_run_opens_no_image_and_finds_the_same(tmp_path, cache, looked_at):
    root = folder_of(tmp_path / "photos")
    for path in sorted(root.rglob("*.png"))[:9]:
        Image.open(path).resize((64, 48)).save(path.with_name(f"again_{path.stem}.jpg"))
    without = load(root, None)
    looked_at.clear()
    first = load(root, cache)
    assert len(looked_at) == 39
    second = load(root, cache)
    assert len(looked_at) == 39
    assert same(first, without)
    assert same(first, second)
    assert "near duplicates" in " ".join(second.notes)
    elsewhere = shutil.copytree(root, tmp_path / "elsewhere")
    assert load(elsewhere, cache).fingerprint == first.fingerprint
    assert len(looked_at) == 39


@pytest.mark.parametrize("keep_time", [False, True])
def test_a_file_that_is_replaced_by_a_broken_one_is_found(tmp_path, cache, keep_time):
    root = folder_of(tmp_path / "photos")
    load(root, cache)
    file = root / "cat" / "04.png"
    times, content = file.stat(), bytearray(file.read_bytes())
    content[60:] = bytes(len(content) - 60)
    file.write_bytes(content)  # of the same size
    if keep_time:
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(GraftError, match=r"1 of 30 files cannot be used .*04\.png"):
        load(root, cache)
    assert load(root, cache, on_bad_sample="skip").report.skipped[0]["sample"] == str(file)
    assert len(load(root, cache, on_bad_sample="skip").report.skipped) == 1


def test_broken_files_alone_are_opened_again(tmp_path, cache, looked_at):
    root = folder_of(tmp_path / "photos")
    (root / "cat" / "broken.png").write_bytes(b"no image")
    (root / "cat" / "empty.png").write_bytes(b"")
    first = load(root, cache, on_bad_sample="skip")
    looked_at.clear()
    assert same(load(root, cache, on_bad_sample="skip"), first)
    assert sorted(looked_at) == ["broken.png", "empty.png"]


def test_another_number_of_channels_is_another_look(tmp_path, cache):
    root = folder_of(tmp_path / "photos")
    load(root, cache)
    with pytest.raises(GraftError, match="no image has so many bands"):
        load(root, cache, channels=4)


def test_damaged_looks_are_made_again(tmp_path, cache, looked_at, capsys):
    root = folder_of(tmp_path / "photos")
    first = load(root, cache)
    file = entry_of(cache) / looks.FILE
    rows = json.loads(file.read_text())
    file.write_text(json.dumps(dict(list(rows.items())[1:])))
    looked_at.clear()
    assert same(load(root, cache), first)
    assert len(looked_at) == 30
    assert "is damaged" in capsys.readouterr().out


def test_a_cache_without_room_changes_nothing(tmp_path):
    root = folder_of(tmp_path / "photos")
    assert same(load(root, DiskCache(tmp_path / "small", 100)), load(root, None))


def test_images_of_an_array_are_hashed_once(tmp_path, cache, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (30, 36, 36, 3), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", images=images, labels=np.arange(30) % 2)

    def loaded():
        domain = ImageArrays(str(tmp_path / "some.npz"))
        domain.cache = cache
        return domain, domain.load(0)

    _, first = loaded()
    monkeypatch.setattr(looks, "thumbnail_of", None)
    domain, second = loaded()
    assert same(first, second)
    assert all(bits is not None for bits in domain.hashes.values())


def test_files_of_a_torchvision_set_are_opened_once(tmp_path, cache, monkeypatch):
    """EuroSAT is a folder of images for each class."""
    folder_of(tmp_path / "eurosat" / "2750")

    def loaded():
        domain = TorchvisionDataset("EuroSAT", str(tmp_path))
        domain.cache = cache
        return domain.load(0)

    first = loaded()
    monkeypatch.setattr(torchvision, "thumbnail_of", None)
    assert same(loaded(), first)


def test_looks_are_written_as_they_are(tmp_path):
    picture = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).random((40, 40), dtype=np.float32)).save(picture, "TIFF")
    path = tmp_path / "deep.tif"
    path.write_bytes(picture.getvalue())
    (look,) = looks.look_at([0], lambda index: labelled_images.look_into(path, 1))
    looks.write({look.digest: look}, tmp_path)
    kept = looks.read(tmp_path)[look.digest]
    assert look.hash.tolist() == kept.hash.tolist()
    assert (look.limit, look.low, look.high, look.pages) == (kept.limit, kept.low, kept.high, kept.pages)
    assert look.limit is None
    assert look.high > look.low
