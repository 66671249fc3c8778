"""Boxes from Pascal VOC and COCO: what is read, what is left out, and what is refused."""

import json

import pytest
import torch
from PIL import Image

from graft.data.boxes import Boxes
from graft.data.sources.coco import COCO
from graft.data.sources.voc import VOC
from graft.errors import GraftError
from tests.boxes_on_disk import SIZE, write_coco, write_voc, write_xml


def loaded(domain):
    domain.key = "data.target"
    return domain.load(0)


def test_voc_with_its_official_splits(tmp_path):
    data = loaded(VOC(str(write_voc(tmp_path / "voc"))))
    assert [len(one) for one in (data.train, data.val, data.test)] == [12, 6, 6]
    assert data.classes == ("blue", "red")
    assert "official splits" in data.report.split
    labels = data.train.labels
    assert isinstance(labels, Boxes)
    assert labels.sizes.tolist() == [list(SIZE)] * 12
    first = Image.open(data.train.places[0])
    for box, label in zip(labels.boxes[0].int().tolist(), labels.classes[0].tolist(), strict=True):
        red, _, blue = first.getpixel(((box[0] + box[2]) // 2, (box[1] + box[3]) // 2))
        assert (red > blue) == (data.classes[label] == "red")


def test_boxes_without_area_and_difficult_ones_are_counted_and_left_out(tmp_path):
    root = write_voc(tmp_path / "voc")
    boxes = [("red", (5, 5, 20, 20)), ("red", (9, 9, 9, 30)), ("blue", (70, 2, 90, 20)), ("blue", (50, 40, 99, 99))]
    write_xml(root / "Annotations" / "train_0.xml", [*boxes, ("red", (1, 1, 9, 9))], difficult={4})
    data = loaded(VOC(str(root)))
    assert "2 boxes without area are left out" in data.notes
    assert "1 boxes marked as difficult are left out" in data.notes
    assert data.train.labels.boxes[0].tolist() == [[5, 5, 20, 20], [50, 40, 64, 48]], "cut off at the border"


def test_chosen_classes_in_their_order(tmp_path):
    data = loaded(VOC(str(write_voc(tmp_path / "voc")), classes=["red"]))
    assert data.classes == ("red",)
    assert any("boxes of other classes are left out (blue)" in note for note in data.notes)


def test_voc_without_lists_is_split_with_the_shares_of_classes(tmp_path):
    root = write_voc(tmp_path / "voc")
    for name in ("train", "val", "test"):
        (root / "ImageSets" / "Main" / f"{name}.txt").unlink()
    data = loaded(VOC(str(root), val_fraction=0.25, test_fraction=0.25))
    assert [len(one) for one in (data.train, data.val, data.test)] == [12, 6, 6]
    again = loaded(VOC(str(root), val_fraction=0.25, test_fraction=0.25))
    assert again.fingerprint == data.fingerprint
    assert again.train.fingerprint == data.train.fingerprint


def test_the_fingerprint_follows_the_boxes(tmp_path):
    root = write_voc(tmp_path / "voc")
    before = loaded(VOC(str(root))).fingerprint
    write_xml(root / "Annotations" / "train_0.xml", [("red", (5, 5, 20, 21))])
    assert loaded(VOC(str(root))).fingerprint != before


def test_an_annotation_of_another_image_is_refused_or_skipped(tmp_path):
    root = write_voc(tmp_path / "voc")
    write_xml(root / "Annotations" / "train_1.xml", [("red", (5, 5, 20, 20))], size=(480, 640))
    with pytest.raises(GraftError, match=r"train_1.*640 x 480 pixels, and it has 64 x 48.*on_bad_sample=skip"):
        loaded(VOC(str(root)))
    assert len(loaded(VOC(str(root), on_bad_sample="skip")).train) == 11


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: (root / "Annotations" / "val_0.xml").write_text("<annotation>"), r"val_0.xml is no annotation"),
        (lambda root: (root / "Annotations" / "val_0.xml").unlink(), r"val_0.xml cannot be read.*list of images"),
        (lambda root: (root / "JPEGImages" / "val_0.png").unlink(), r"val_0.jpg: there is no such file"),
        (lambda root: (root / "JPEGImages").rename(root / "photos"), r"there is no folder JPEGImages"),
    ],
)
def test_what_is_broken_is_named(tmp_path, break_it, message):
    root = write_voc(tmp_path / "voc")
    break_it(root)
    with pytest.raises(GraftError, match=message):
        loaded(VOC(str(root)))


def test_coco_with_splits_split_off_and_crowds_left_out(tmp_path):
    file = write_coco(tmp_path / "coco")
    content = json.loads(file.read_text())
    content["annotations"][0]["iscrowd"] = 1
    file.write_text(json.dumps(content))
    data = loaded(COCO(str(file), val_fraction=0.2, test_fraction=0.2))
    assert [len(one) for one in (data.train, data.val, data.test)] == [12, 4, 4]
    assert data.classes == ("blue", "red")
    assert "1 boxes of crowds are left out" in data.notes
    total = sum(int(one.labels.counts(2).sum()) for one in (data.train, data.val, data.test))
    assert total == len(content["annotations"]) - 1


def test_coco_with_files_of_their_own(tmp_path):
    file, other = write_coco(tmp_path / "train", 8), write_coco(tmp_path / "val", 5, seed=2)
    data = loaded(COCO(str(file), val_file=str(other), val_folder=str(other.parent), test_fraction=0.25))
    assert [len(one) for one in (data.train, data.val, data.test)] == [6, 5, 2]


def test_a_file_that_is_not_cocos_is_refused(tmp_path):
    file = write_coco(tmp_path / "coco")
    file.write_text("[]")
    with pytest.raises(GraftError, match="is no file of boxes in COCO's layout"):
        loaded(COCO(str(file)))


def test_boxes_are_indexed_joined_and_restored_like_a_tensor():
    boxes = Boxes(
        [torch.tensor([[0.0, 0, 10, 20]]), torch.zeros(0, 4)],
        [torch.tensor([1]), torch.zeros(0, dtype=torch.int64)],
        torch.tensor([[20, 40], [20, 40]]),
        torch.tensor([[40, 80], [20, 40]]),
    )
    assert len(boxes[torch.tensor([1, 0, 1])]) == 3
    assert boxes[torch.tensor([False, True])].tolist() == [()]
    assert Boxes.join([boxes[:1], boxes[1:]]).tolist() == boxes.tolist()
    assert boxes.restored().boxes[0].tolist() == [[0, 0, 20, 40]]
    assert boxes.counts(3).tolist() == [[0, 1, 0], [0, 0, 0]]
    assert boxes.digest != boxes[torch.tensor([1, 0])].digest
