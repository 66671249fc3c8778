import shutil
import struct
import zlib

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
    before = ImageFolder(str(photos)).load(0).fingerprint
    assert before == ImageFolder(str(photos)).load(0).fingerprint
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photos / "cat" / "0.png")
    changed = ImageFolder(str(photos)).load(0).fingerprint
    (photos / "cat" / "0.png").rename(photos / "dog" / "new.png")
    moved = ImageFolder(str(photos)).load(0).fingerprint
    assert len({before, changed, moved}) == 3


def test_mistakes_are_named(photos, tmp_path):
    with pytest.raises(GraftError, match=r"data\.target\.root=.*nowhere: no such folder"):
        ImageFolder(str(tmp_path / "nowhere")).load(0)
    with pytest.raises(GraftError, match="at least 2 sub-folders"):
        ImageFolder(str(photos / "cat")).load(0)
    with pytest.raises(GraftError, match="too few to split off a val split"):
        ImageFolder(str(photos), val_fraction=0.01).load(0)
    (photos / "fox").mkdir()
    with pytest.raises(GraftError, match=r"no images in .*fox"):
        ImageFolder(str(photos)).load(0)


def test_a_class_that_training_never_sees_is_named(photos, tmp_path):
    root = tmp_path / "splits"
    shutil.copytree(photos, root / "test")
    shutil.copytree(photos, root / "train")
    shutil.rmtree(root / "train" / "eel")
    with pytest.raises(
        GraftError, match=r"10 of 50 files .*eel/0\.png: its label 'eel' is not one of the classes: cat"
    ):
        ImageFolder(str(root)).load(0)


def test_broken_files_are_counted_and_left_out_where_asked(photos):
    whole = sum(counts(ImageFolder(str(photos)).load(0)))
    (photos / "eel" / "x.jpg").write_bytes(b"not an image")
    cut = photos / "cat" / "0.png"
    cut.write_bytes(cut.read_bytes()[:200])
    data = ImageFolder(str(photos), on_bad_sample="skip").load(0)
    assert sum(counts(data)) == whole - 1
    assert data.notes[0].startswith("skipped: 2 files (")
    assert [one["reason"] for one in data.report.skipped] == [
        "it cannot be read as an image (image file is truncated)",
        "it cannot be read as an image (cannot identify image file)",
    ]
    assert all(image.ndim == 3 for split in (data.train, data.val, data.test) for image in split.inputs)


def test_a_class_of_broken_files_alone_is_named(photos):
    for path in (photos / "eel").iterdir():
        path.write_bytes(b"not an image")
    with pytest.raises(GraftError, match="no training sample has the label 'eel', one of 3 classes"):
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


# Folders


@pytest.mark.parametrize(
    ("train", "test"),
    [("Training", "Testing"), ("Train", "Test"), ("train_set", "test-set"), ("train2017", "val2017"), ("TRAIN", "dev")],
)
def test_splits_are_known_by_many_names(photos, tmp_path, train, test):
    for name in (train, test):
        shutil.copytree(photos, tmp_path / "splits" / name)
    data = ImageFolder(str(tmp_path / "splits")).load(0)
    assert data.classes == ("cat", "dog", "eel")
    assert sorted(counts(data))[-1] == 30 or len(data.val) == 30, "the official split is whole"
    official = "test" if "est" in test.lower() else "val"
    assert f"30 images of {official} are in train too" in data.notes


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["fold1", "fold2", "fold3"], "fold1, fold2, fold3 look like splits, not like classes"),
        (["xray_train_a", "xray_test_a"], "look like splits, not like classes"),
        (["val", "test"], "there is none to train on"),
        (["train", "val", "valid"], "val, valid each look like the val split"),
    ],
)
def test_folders_that_look_like_splits_do_not_become_classes(photos, tmp_path, names, said):
    for name in names:
        shutil.copytree(photos, tmp_path / "splits" / name)
    with pytest.raises(GraftError, match=said):
        ImageFolder(str(tmp_path / "splits")).load(0)


def test_domains_above_classes_are_noted(photos, tmp_path):
    for name in ("sketch", "cartoon"):
        shutil.copytree(photos, tmp_path / "pacs" / name)
    data = ImageFolder(str(tmp_path / "pacs")).load(0)
    assert data.classes == ("cartoon", "sketch")
    assert any("has sub-folders cat, dog, eel" in note for note in data.notes)


def test_a_class_or_an_archives_folder_as_root_is_told_the_right_one(photos):
    with pytest.raises(GraftError, match=rf"It holds 10 images itself.*data\.target\.root={photos}$"):
        ImageFolder(str(photos / "cat")).load(0)
    with pytest.raises(GraftError, match=rf"only folder has such sub-folders: data\.target\.root={photos}$"):
        ImageFolder(str(photos.parent)).load(0)


def test_every_file_is_read_counted_or_refused(photos):
    image = Image.new("RGB", (12, 16), (9, 80, 7))
    image.save(photos / "cat" / "phone.jfif", format="JPEG")
    image.save(photos / "cat" / "scan.PPM", format="PPM")
    (photos / "cat" / "deep" / "er").mkdir(parents=True)
    image.save(photos / "cat" / "deep" / "er" / "x.png")
    image.save(photos / "away.png")
    (photos / "linked").symlink_to(photos / "dog", target_is_directory=True)
    (photos / "dog" / "round").symlink_to(photos / "dog", target_is_directory=True)
    (photos / "dog" / "notes.TXT").write_text("no image")
    (photos / "dog" / "README").write_text("no image")
    (photos / "eel" / ".hidden.png").write_bytes(b"")
    data = ImageFolder(str(photos)).load(0)
    report = data.report
    assert (report.found, sum(report.used.values())) == (49, 43)
    assert report.left_out == {
        "files beside the folders of classes": 1,
        ".txt files": 2,
        "files without an ending": 2,
        "hidden files": 1,
    }
    (photos / "eel" / "gone.jpg").symlink_to("nowhere.jpg")
    (photos / "eel" / "folder.jpg").mkdir()
    with pytest.raises(GraftError, match=r"2 of 45 files .*folder\.jpg: it is a folder; .*a link to nowhere\.jpg"):
        ImageFolder(str(photos)).load(0)
    data = ImageFolder(str(photos), on_bad_sample="skip").load(0)
    assert (len(data.report.skipped), sum(data.report.used.values())) == (2, 43)


# Decoders


def png_with_long_text(path):
    """A PNG that Pillow refuses by a ValueError."""
    Image.new("RGB", (8, 8)).save(path)
    text = b"comment\0\0" + zlib.compress(b"a" * 2**21)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    content = path.read_bytes()
    path.write_bytes(content[:33] + chunk + content[33:])


def png_of_promises(path):
    """A PNG whose header says 60,000 x 60,000."""
    Image.new("L", (8, 8)).save(path)
    content = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + content[24:29]
    path.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])


def cut_gif(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)).save(path, format="GIF")
    path.write_bytes(path.read_bytes()[:1200])


@pytest.mark.parametrize(
    ("write", "name", "said"),
    [
        (png_with_long_text, "x.png", "Decompressed data too large"),
        (png_of_promises, "x.png", "exceeds limit"),
        (cut_gif, "x.gif", "truncated|broken|not processed"),
        (lambda path: path.write_bytes(b""), "x.webp", "the file is empty"),
        (lambda path: path.write_bytes(b"II*\0" + bytes(40)), "x.tif", "cannot be read as an image"),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_whatever_a_decoder_raises_is_one_bad_sample(photos, tmp_path, write, name, said, split):
    for one in ("train", "test"):
        shutil.copytree(photos, tmp_path / "splits" / one)
    write(tmp_path / "splits" / split / "cat" / name)
    with pytest.raises(GraftError, match=rf"1 of 61 files cannot be used \(.*{split}/cat/{name}: .*{said}"):
        ImageFolder(str(tmp_path / "splits")).load(0)
    assert sum(counts(ImageFolder(str(tmp_path / "splits"), on_bad_sample="skip").load(0))) == 60


# Ranges of values


def write_grey(root, values, ending="tif"):
    for index, one in enumerate(values):
        folder = root / ("dark" if index % 2 else "light")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one).save(folder / f"{index:02}.{ending}")
    return str(root)


def ramp(low, high, kind, number=16):
    values = np.linspace(low, high, 48).astype(kind)
    return [np.roll(values, turn).reshape(6, 8) for turn in range(number)]


@pytest.mark.parametrize(
    ("low", "high", "kind", "ending"),
    [
        (0, 4095, "uint16", "tif"),
        (0, 4095, "uint16", "png"),
        (-1000, 3000, "int32", "tif"),
        (0, 255, "float32", "tif"),
        (0, 0.02, "float32", "tif"),
    ],
)
def test_a_range_that_the_type_does_not_tell_is_asked_for_with_what_was_found(tmp_path, low, high, kind, ending):
    root = write_grey(tmp_path / "scans", ramp(low, high, kind), ending)
    with pytest.raises(
        GraftError, match=rf"values from {low:g} to {high:g}.*'data\.target\.pixel_range=\[{low:g},{high:g}\]'"
    ):
        ImageFolder(root).load(0)
    data = ImageFolder(root, channels=1, pixel_range=[low, high]).load(0)
    found = data.train.inputs[0].flatten().sort().values.double()
    assert (found - torch.linspace(0, 255, 48)).abs().max() <= 1


def test_ranges_that_the_type_tells(tmp_path):
    data = ImageFolder(write_grey(tmp_path / "float", ramp(0, 1, "float32")), channels=1).load(0)
    assert data.train.inputs[0].max() == 255
    assert "16 images of floats are read as 0 (black) to 1 (white)" in data.notes
    data = ImageFolder(write_grey(tmp_path / "deep", ramp(0, 65535, "uint16")), channels=1).load(0)
    assert (data.train.inputs[0].flatten().sort().values - torch.linspace(0, 255, 48)).abs().max() <= 1


def test_what_lies_outside_a_stated_range_is_counted(tmp_path):
    scans = ramp(-1000, 400, "int32", 15) + ramp(-1000, 3000, "int32", 1)
    root = write_grey(tmp_path / "ct", scans)
    data = ImageFolder(root, pixel_range=[-1000, 400], channels=1).load(0)
    assert (
        "1 images have values outside data.target.pixel_range=[-1000,400] (from -1000 to 3000), which are read as "
        "its ends" in data.notes
    )
    values = np.full((4, 4), np.nan, dtype=np.float32)
    Image.fromarray(values).save(tmp_path / "ct" / "dark" / "x.tif")
    with pytest.raises(GraftError, match=r"x\.tif: a value is NaN or infinite"):
        ImageFolder(root, pixel_range=[-1000, 400]).load(0)
    with pytest.raises(GraftError, match=r"pixel_range=\[5, 5\]: it is the lowest and the highest value"):
        ImageFolder(root, pixel_range=[5, 5]).load(0)


# Bands and pages


def test_bands_are_channels_where_the_files_have_them(photos, tmp_path):
    with pytest.raises(GraftError, match=r"data\.target\.channels=4: no image has so many bands; .* has 3"):
        ImageFolder(str(photos), channels=4).load(0)
    for path in sorted(photos.rglob("*.png")):
        Image.open(path).convert("RGBA").save(path)
    data = ImageFolder(str(photos), channels=4).load(0)
    assert data.channels == 4
    assert data.train.inputs[0].shape == (4, 12, 16)
    Image.new("RGB", (4, 4)).save(photos / "cat" / "odd.png")
    with pytest.raises(GraftError, match=r"odd\.png: it has 3 bands, not 4"):
        ImageFolder(str(photos), channels=4).load(0)


@pytest.mark.parametrize("bands", [2, 6])
def test_a_tiff_of_many_bands_and_bits(tmp_path, bands):
    tifffile = pytest.importorskip("tifffile")
    values = np.random.default_rng(0).integers(0, 65536, (12, 5, 7, bands), dtype=np.uint16)
    for index, one in enumerate(values):
        folder = tmp_path / "scenes" / ("field" if index % 2 else "wood")
        folder.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / f"{index:02}.tif", one, planarconfig="contig", photometric="minisblack")
    data = ImageFolder(str(tmp_path / "scenes"), channels=bands).load(0)
    assert data.train.inputs[0].shape == (bands, 5, 7)
    assert decode(tmp_path / "scenes" / "wood" / "00.tif", bands).permute(1, 2, 0).numpy().tolist() == (
        (values[0] / 257).round().tolist()
    )


def test_sixteen_bits_a_colour_keep_their_shades(tmp_path):
    deep = np.zeros((2, 3, 3), dtype=">u2")
    deep[0, 0] = [100, 2000, 4095]
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    header = b"IHDR" + struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(rows), b"IEND"]
    png = b"".join(struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks)
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    pixels = decode(tmp_path / "x.png", pixel_range=(0, 4095))
    assert pixels[:, 0, 0].tolist() == [6, 125, 255]


def test_further_pages_are_counted(photos):
    pages = [Image.new("L", (8, 8), shade) for shade in (200, 10)]
    pages[0].save(photos / "cat" / "pages.tif", save_all=True, append_images=pages[1:])
    data = ImageFolder(str(photos)).load(0)
    assert "1 files have several pages or frames, of which the first is read" in data.notes


# Labels


def test_folders_of_numbers_and_of_several_labels(photos):
    with pytest.raises(GraftError, match=r"label_kind=multilabel: .*data/domain@data\.target=image_file"):
        ImageFolder(str(photos), label_kind="multilabel").load(0)
    for name, age in {"cat": "1.5", "dog": "20", "eel": "7"}.items():
        (photos / name).rename(photos / age)
    data = ImageFolder(str(photos), label_kind="numbers").load(0)
    assert data.classes is None
    assert sorted(set(data.train.labels.tolist())) == [1.5, 7, 20]


# Images that look alike


def scenes(root, number=24):
    """Different pictures, each in its own file."""
    random = np.random.default_rng(0)
    for index in range(number):
        small = Image.fromarray(random.integers(0, 256, (18, 24, 3), dtype=np.uint8))
        folder = root / ("in" if index % 2 else "out")
        folder.mkdir(parents=True, exist_ok=True)
        small.resize((80, 60), Image.Resampling.BICUBIC).save(folder / f"{index:02}.png")
    return root


def test_near_duplicates_are_counted_grouped_or_ignored(tmp_path):
    root = scenes(tmp_path / "photos")
    assert not any("near" in note for seed in range(3) for note in ImageFolder(str(root)).load(seed).notes)
    for path in sorted(root.rglob("*.png")):
        image = Image.open(path).resize((64, 48))
        image.save(path.with_name(f"again_{path.stem}.jpg"), quality=60)
    data = ImageFolder(str(root)).load(0)
    assert any("of test look like one of train (near duplicates)" in note for note in data.notes)
    assert "near_duplicates=group" in " ".join(data.notes)
    assert not any("near" in note for note in ImageFolder(str(root), split={"near_duplicates": "ignore"}).load(0).notes)
    for seed in range(3):
        data = ImageFolder(str(root), split={"near_duplicates": "group"}).load(seed)
        assert data.notes == ()
        sides = [
            {split.inputs.dataset.files[i].stem.removeprefix("again_") for i in split.inputs.indices}
            for split in (data.train, data.val, data.test)
        ]
        assert sum(map(len, sides)) == len(set.union(*sides)) == 24
