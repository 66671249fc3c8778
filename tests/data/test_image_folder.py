import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from graft.data.readers.images import decode
from graft.data.sources.image_folder import ImageFolder
from graft.errors import GraftError


def counts(data):
    return [len(split) for split in (data.train, data.val, data.test)]


def test_one_tree_is_split_by_seed(photos):
    data = ImageFolder(str(photos), val_fraction=0.2, test_fraction=0.3).load(0)
    assert data.classes == ("cat", "dog", "eel")
    assert counts(data) == [15, 6, 9]
    assert data.test.labels.bincount().tolist() == [3, 3, 3]
    assert data.train.inputs[0].shape == (3, 12, 16)
    files = [
        {split.inputs.dataset.files[i] for i in split.inputs.indices} for split in (data.train, data.val, data.test)
    ]
    assert len(set.union(*files)) == 30
    other = ImageFolder(str(photos), val_fraction=0.2, test_fraction=0.3).load(1)
    assert other.test.inputs.indices != data.test.inputs.indices


def test_official_parts_stay_whole(photos, tmp_path):
    root = tmp_path / "splits"
    for split in ("train", "test"):
        shutil.copytree(photos, root / split)
    (root / "test" / "eel" / "0.png").unlink()
    data = ImageFolder(str(root), val_fraction=0.2).load(0)
    assert counts(data) == [24, 6, 29]
    shutil.copytree(photos, root / "valid")
    assert counts(ImageFolder(str(root)).load(0)) == [30, 30, 29]


def test_a_class_called_train_is_a_class(photos):
    (photos / "cat").rename(photos / "train")
    assert ImageFolder(str(photos)).load(0).classes == ("dog", "eel", "train")


def test_copies_stay_on_one_side_and_are_noted(photos):
    for i in range(5):
        shutil.copy(photos / "cat" / f"{i}.png", photos / "dog" / f"copy{i}.png")
    for seed in range(3):
        data = ImageFolder(str(photos), val_fraction=0.3, test_fraction=0.3).load(seed)
        assert data.notes == ("5 images occur more than once, 5 of them with different labels",)
        sides = [{image.numpy().tobytes() for image in split.inputs} for split in (data.train, data.val, data.test)]
        assert sum(len(side) for side in sides) == len(set.union(*sides)) == 30


def test_hidden_files_are_no_images(photos):
    (photos / "cat" / "._0.png").write_bytes(b"a Mac was here")
    (photos / ".cache").mkdir()
    assert sum(counts(ImageFolder(str(photos)).load(0))) == 30


def test_fingerprint_follows_the_content(photos):
    before = ImageFolder(str(photos)).fingerprint
    assert before == ImageFolder(str(photos)).fingerprint
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photos / "cat" / "0.png")
    changed = ImageFolder(str(photos)).fingerprint
    (photos / "cat" / "0.png").rename(photos / "dog" / "new.png")
    moved = ImageFolder(str(photos)).fingerprint
    assert len({before, changed, moved}) == 3


def test_mistakes_are_named(photos, tmp_path):
    with pytest.raises(GraftError, match=r"data\.target\.root=.*nowhere: no such folder"):
        ImageFolder(str(tmp_path / "nowhere")).load(0)
    with pytest.raises(GraftError, match="at least 2 sub-folders"):
        ImageFolder(str(photos / "cat")).load(0)
    with pytest.raises(GraftError, match="too few for a val split"):
        ImageFolder(str(photos), val_fraction=0.01).load(0)
    (photos / "fox").mkdir()
    with pytest.raises(GraftError, match=r"no images in .*fox"):
        ImageFolder(str(photos)).load(0)


def test_a_class_that_training_never_sees_is_named(photos, tmp_path):
    root = tmp_path / "splits"
    shutil.copytree(photos, root / "test")
    shutil.copytree(photos, root / "train")
    shutil.rmtree(root / "train" / "eel")
    with pytest.raises(GraftError, match=r"class 'eel' is in .*test but not in .*train"):
        ImageFolder(str(root)).load(0)


def test_broken_files_are_counted_and_left_out_where_asked(photos):
    whole = sum(counts(ImageFolder(str(photos)).load(0)))
    (photos / "eel" / "x.jpg").write_bytes(b"not an image")
    cut = photos / "cat" / "0.png"
    cut.write_bytes(cut.read_bytes()[:200])
    data = ImageFolder(str(photos), on_bad_sample="skip").load(0)
    assert sum(counts(data)) == whole - 1
    assert "2 images are skipped, the first because" in data.notes[0]
    assert all(image.ndim == 3 for split in (data.train, data.val, data.test) for image in split.inputs)


def test_a_class_of_broken_files_alone_is_named(photos):
    for path in (photos / "eel").iterdir():
        path.write_bytes(b"not an image")
    with pytest.raises(GraftError, match="no image of class 'eel' can be read"):
        ImageFolder(str(photos), on_bad_sample="skip").load(0)


def test_broken_file_is_named(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"not an image")
    with pytest.raises(GraftError, match=r"x\.jpg cannot be read as an image"):
        decode(tmp_path / "x.jpg")


RED = (255, 0, 0)


def save(path, mode, **options):
    image = Image.new("RGB", (6, 4), RED)
    image.convert(mode).save(path, **options)
    return decode(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tiff"])
def test_formats(tmp_path, suffix):
    image = save(tmp_path / f"x.{suffix}", "P" if suffix == "gif" else "RGB")
    assert image.shape == (3, 4, 6)
    assert image.dtype == torch.uint8
    assert (image.float().mean((1, 2)) - torch.tensor([255.0, 0, 0])).abs().max() < 12


def test_modes(tmp_path):
    assert (save(tmp_path / "p.png", "P").float().mean((1, 2)) == torch.tensor([255.0, 0, 0])).all()
    grey = save(tmp_path / "l.png", "L")
    assert grey[0].equal(grey[2])
    assert grey[0, 0, 0] == 76
    assert (save(tmp_path / "cmyk.jpg", "CMYK", quality=100).float().mean((1, 2))[0]) > 240
    assert save(tmp_path / "one.png", "1").shape == (3, 4, 6)


def test_sixteen_bits_keep_their_shades(tmp_path):
    Image.fromarray(np.array([[0, 257 * 100, 65535]], dtype=np.uint16)).save(tmp_path / "x.png")
    assert decode(tmp_path / "x.png", channels=1).flatten().tolist() == [0, 100, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_white(tmp_path, mode):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    if mode == "P":
        image = Image.new("P", (2, 1))
        image.putpalette([0, 0, 0, 0, 0, 0])
        image.putpixel((1, 0), 1)
        image.save(tmp_path / "x.png", transparency=1)
    else:
        image.convert(mode).save(tmp_path / "x.png")
    assert decode(tmp_path / "x.png")[:, 0].tolist() == [[0, 255]] * 3


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    image = Image.new("L", (6, 4))
    image.paste(255, (0, 0, 3, 4))  # left half white
    image.save(tmp_path / "x.png", exif=exif)
    pixels = decode(tmp_path / "x.png", channels=1)
    assert pixels.shape == (1, 6, 4)
    assert (pixels[0, :3] == 255).all(), "left is now on top"


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("L", (3, 3), shade) for shade in (200, 10)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert (decode(tmp_path / "x.gif", channels=1) == 200).all()
