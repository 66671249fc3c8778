import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from graft.data.sources.image_arrays import ImageArrays
from graft.errors import GraftError


@pytest.fixture
def archive(tmp_path):
    """An npz of grey 6x5 images of two classes in official splits, with some arrays in the place of its own."""
    random = np.random.default_rng(0)
    arrays = {}
    for split, number in {"train": 20, "val": 6, "test": 8}.items():
        arrays[f"{split}_images"] = random.integers(0, 256, (number, 6, 5), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(number) % 2).astype(np.uint8)[:, None]

    def archive(without=(), **changes):
        content = {name: array for name, array in {**arrays, **changes}.items() if name not in without}
        np.savez(tmp_path / "xray.npz", **content)
        return tmp_path / "xray.npz", content

    return archive


def domain(file, **settings):
    return ImageArrays(str(file), **settings)


def test_official_parts_stay_whole(archive):
    file, arrays = archive()
    data = domain(file, class_names=["normal", "ill"]).load(0)
    assert (data.name, data.classes, data.channels, data.modality) == ("xray", ("normal", "ill"), 1, "image")
    assert data.notes == ()
    for name in ("train", "val", "test"):
        split = getattr(data, name)
        assert torch.equal(split.inputs, torch.from_numpy(arrays[f"{name}_images"])[:, None])
        assert split.labels.tolist() == arrays[f"{name}_labels"][:, 0].tolist()


def test_one_set_is_split_by_seed_and_copies_stay_together(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    images[30:] = images[:30]
    np.savez_compressed(tmp_path / "set.npz", photos=images, kinds=np.arange(60) % 3)
    settings = {"images": "photos", "labels": "kinds", "val_fraction": 0.2, "test_fraction": 0.2}
    data = domain(tmp_path / "set.npz", **settings).load(0)
    assert (data.classes, data.channels) == (("0", "1", "2"), 3)
    assert [len(split) for split in (data.train, data.val, data.test)] == [36, 12, 12]
    contents = [{image.numpy().tobytes() for image in split.inputs} for split in (data.train, data.val, data.test)]
    assert len(set.union(*contents)) == sum(map(len, contents)) == 30
    assert data.notes == ("30 images occur more than once, 0 of them with different labels",)
    assert torch.equal(data.train.inputs, domain(tmp_path / "set.npz", **settings).load(0).train.inputs)
    assert not torch.equal(data.train.inputs, domain(tmp_path / "set.npz", **settings).load(1).train.inputs)


@pytest.mark.parametrize("kind", ["float64", "float16", "int64"])
def test_numbers_of_any_kind_are_the_same_images(archive, kind):
    file, arrays = archive()
    expected = domain(file).load(0)
    scale = 255 if kind.startswith("float") else 1
    file, _ = archive(**{name: (a / scale).astype(kind) for name, a in arrays.items() if name.endswith("images")})
    found = domain(file).load(0)
    assert torch.equal(found.test.inputs, expected.test.inputs)
    assert found.fingerprint == expected.fingerprint


def test_an_image_of_another_part_is_told(archive):
    _, arrays = archive()
    arrays["test_images"][:2] = arrays["train_images"][:2]
    file, _ = archive(**arrays)
    assert domain(file).load(0).notes == ("2 images of test are in train too",)


def test_the_fingerprint_is_of_images_labels_and_classes(archive):
    file, arrays = archive()
    first = domain(file).load(0).fingerprint
    assert domain(file).load(0).fingerprint == first
    assert domain(file, class_names=["a", "b"]).load(0).fingerprint != first
    assert domain(archive(test_labels=1 - arrays["test_labels"])[0]).load(0).fingerprint != first
    assert domain(archive(val_images=255 - arrays["val_images"])[0]).load(0).fingerprint != first


BAD = {
    "NaN": (lambda a: a["train_images"].__setitem__(3, np.nan), r"train_images\[3\]: a value is NaN or infinite"),
    "range": (
        lambda a: a["train_images"].__setitem__((3, 0, 0), 7),
        r"train_images\[3\]: values from .* to 7; images of floats lie in 0 to 1, or in a stated .*pixel_range",
    ),
    "class": (
        lambda a: a["test_labels"].__setitem__(3, 2),
        r"test_images\[3\]: its label '2' is not one of the classes: 0, 1",
    ),
}


@pytest.mark.parametrize("problem", BAD)
def test_a_bad_image_is_named_or_left_out_and_counted(archive, problem):
    _, arrays = archive()
    changed = {name: a / 255 if name.endswith("images") else a for name, a in arrays.items()}
    change, said = BAD[problem]
    change(changed)
    file, _ = archive(**changed)
    with pytest.raises(GraftError, match=rf"1 of 34 images cannot be used \(.*xray\.npz: {said}\)") as error:
        domain(file).load(0)
    assert "data.target.on_bad_sample=skip" in str(error.value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = domain(file, on_bad_sample="skip").load(0)
    assert len(data.train) + len(data.val) + len(data.test) == 33
    assert data.notes[0].startswith("skipped: 1 images (")


@pytest.mark.parametrize(
    ("without", "changes", "settings", "said"),
    [
        (["train_images"], {}, {}, r"no array train_images or images\. It has train_labels.*data\.target\.images="),
        (["val_labels"], {}, {}, r"no array val_labels\. It has .*data\.target\.labels="),
        ([], {}, {"images": "scans"}, "no array train_scans or scans"),
        ([], {"test_labels": np.zeros(3, int)}, {}, "test_labels has 3 labels, but test_images 8 images"),
        ([], {"train_labels": np.full(20, 0.5)}, {}, r"train_labels\[0\] is 0\.5; labels are whole numbers"),
        ([], {"train_labels": np.full(20, np.nan)}, {}, r"train_labels\[0\] is nan"),
        ([], {"train_labels": np.zeros((20, 3), int)}, {}, r"train_labels has the shape \(20, 3\)"),
        ([], {"train_labels": np.array(["a", "b"] * 10)}, {}, r"train_labels has .* type <U1"),
        ([], {"train_labels": np.zeros(20, int)}, {"class_names": ["a", "b"]}, "every label is 'a'"),
        (
            [],
            {"train_labels": np.zeros(20, int), "test_labels": np.zeros(8, int)},
            {},
            "its label '1' is not one",
        ),
        ([], {}, {"class_names": ["a", "b", "c"]}, "no training sample has the label 'c', one of 3 classes"),
        ([], {"train_labels": np.arange(20) * 10**9}, {}, r"train_images\[1\]: its label '1000000000' is not one"),
        ([], {"train_images": np.zeros((20, 5), np.uint8)}, {}, r"train_images has the shape \(20, 5\)"),
        ([], {"train_images": np.zeros((20, 2, 5, 5), np.uint8)}, {}, "the channels come last"),
        ([], {"train_images": np.zeros((20, 0, 5), np.uint8)}, {}, r"the shape \(20, 0, 5\)"),
        ([], {"train_images": np.array([["a"]] * 20)}, {}, "type <U1"),
        ([], {"val_images": np.zeros((6, 6, 5, 3), np.uint8)}, {}, "different numbers of channels, 1 in train, 3 in v"),
        (
            [],
            {"test_images": np.zeros((0, 6, 5), np.uint8), "test_labels": np.zeros(0, int)},
            {},
            "there are no images that can be used for test",
        ),
        (
            [],
            {"train_images": np.zeros((0, 6, 5), np.uint8), "train_labels": np.zeros(0, int)},
            {},
            "the arrays are empty",
        ),
    ],
)
def test_arrays_that_cannot_be_used_are_one_error(archive, without, changes, settings, said):
    file, _ = archive(without, **changes)
    with pytest.raises(GraftError, match=said) as error:
        domain(file, **settings).load(0)
    assert str(file) in str(error.value)


def test_one_class_of_a_set_that_is_too_small_to_split(tmp_path):
    np.savez(tmp_path / "set.npz", images=np.zeros((4, 2, 2), np.uint8), labels=np.array([0, 0, 1, 1]))
    with pytest.raises(GraftError, match=r"4 images are too few to split off a test split.*test_fraction"):
        domain(tmp_path / "set.npz").load(0)


def write_pickle(file):
    file.write_bytes(pickle.dumps([1, 2]))


def write_objects(file):
    np.savez(file, train_images=np.array([None, 1], dtype=object), train_labels=np.zeros(2))


def write_half(file):
    np.savez(file, train_images=np.zeros((9, 9, 9)), train_labels=np.zeros(9))
    file.write_bytes(file.read_bytes()[:2000])


def write_damaged(file):
    np.savez_compressed(file, train_images=np.random.default_rng(0).integers(0, 256, (9, 99, 99), dtype=np.uint8))
    content = bytearray(file.read_bytes())
    content[2000:2100] = bytes(100)
    file.write_bytes(content)


def write_single(file):
    with file.open("wb") as stream:
        np.save(stream, np.zeros(3))


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (write_pickle, "cannot be read .*holds Python objects"),
        (write_objects, "array train_images cannot be read .*holds Python objects"),
        (write_half, "cannot be read"),
        (write_damaged, "array train_images cannot be read"),
        (write_single, "holds a single array"),
        (lambda file: file.write_bytes(b""), "cannot be read"),
        (lambda file: file.write_text("images"), "cannot be read"),
        (lambda file: file.unlink(missing_ok=True), r"no such file\. Give an npz file"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_error(tmp_path, write, said):
    file = tmp_path / "xray.npz"
    write(file)
    with pytest.raises(GraftError, match=rf"data\.target\.file={file}.*{said}"):
        domain(file).load(0)


@pytest.mark.real_data
def test_pneumonia():
    file = Path(os.environ.get("GRAFT_DATA", "../shared/data")) / "pneumonia" / "pneumoniamnist_balanced.npz"
    if not file.is_file():
        pytest.skip(f"no {file}")
    data = domain(file, class_names=["normal", "pneumonia"]).load(0)
    assert [len(split) for split in (data.train, data.val, data.test)] == [2428, 270, 468]
    assert data.notes[-1] == "3 images of val are in train too"


@pytest.mark.parametrize(
    ("kind", "high"), [("uint16", 4095), ("float32", 255.0), ("float32", 0.02), ("int32", 3000), ("uint16", 40)]
)
def test_a_range_that_the_type_does_not_tell_is_asked_for(archive, kind, high):
    _, arrays = archive()
    scaled = {n: (a / 255 * high).astype(kind) for n, a in arrays.items() if n.endswith("images")}
    for values in scaled.values():
        values[:, 0, :2] = [0, high]
    file, _ = archive(**scaled)
    with pytest.raises(GraftError, match=r"values from 0 to .*State it: 'data\.target\.pixel_range=\[0,"):
        domain(file).load(0)
    data = domain(file, pixel_range=[0, high]).load(0)
    assert data.notes == ()
    assert (data.train.inputs.amin((1, 2, 3)) == 0).all()
    assert (data.train.inputs.amax((1, 2, 3)) == 255).all()
    notes = domain(file, pixel_range=[0, high / 2]).load(0).notes
    assert sum("which are read as its ends" in note for note in notes) == 3


def test_several_labels_and_numbers(archive):
    _, arrays = archive()
    several = {n: np.eye(4, dtype=np.uint8)[np.arange(len(a)) % 4] for n, a in arrays.items() if n.endswith("labels")}
    file, _ = archive(**several)
    data = domain(file, label_kind="multilabel", class_names=["a", "b", "c", "d"]).load(0)
    assert data.classes == ("a", "b", "c", "d")
    assert data.train.labels[1].tolist() == [0, 1, 0, 0]
    with pytest.raises(GraftError, match=r"label_kind=multilabel"):
        domain(file).load(0)
    numbers = {n: np.arange(len(a)) / 3 for n, a in arrays.items() if n.endswith("labels")}
    data = domain(archive(**numbers)[0], label_kind="numbers").load(0)
    assert data.classes is None
    assert data.test.labels.tolist() == pytest.approx([i / 3 for i in range(8)])


def test_any_number_of_channels(archive):
    _, arrays = archive()
    bands = {n: np.repeat(a[..., None], 5, axis=3) for n, a in arrays.items() if n.endswith("images")}
    data = domain(archive(**bands)[0]).load(0)
    assert (data.channels, data.train.inputs.shape[1:]) == (5, (5, 6, 5))


def test_a_header_that_promises_too_much_is_refused_before_memory_is_asked_for(archive, tmp_path):
    _, arrays = archive()
    with zipfile.ZipFile(tmp_path / "promise.npz", "w") as target:
        for name, values in arrays.items():
            stream = io.BytesIO()
            np.lib.format.write_array(stream, values)
            content = stream.getvalue()
            if name == "val_images":
                content = content.replace(b"(6, 6, 5), }" + b" " * 6, b"(6000000, 6, 5), }")
            target.writestr(f"{name}.npy", content)
    with pytest.raises(GraftError, match=r"promise\.npz: array val_images .*promises 180,000,000 bytes"):
        domain(tmp_path / "promise.npz").load(0)
