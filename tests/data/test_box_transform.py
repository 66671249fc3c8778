"""Boxes move with their images: resized, mirrored, cropped, padded."""

import pytest
import torch

from graft.data.boxes import Boxes
from graft.errors import GraftError
from graft.inputs.image.boxes import BoxTransform, ShorterSide
from graft.inputs.image.transform import ImageSpec

SPEC = ImageSpec(3, (48, 48), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def marked(boxes, size=(96, 128)):
    """An image that is bright inside of the boxes, and the boxes."""
    image = torch.zeros(3, *size, dtype=torch.uint8)
    for x0, y0, x1, y1 in boxes:
        image[:, y0:y1, x0:x1] = 255
    whole = torch.tensor([size])
    labels = Boxes([torch.tensor(boxes).float()], [torch.arange(len(boxes))], whole, whole)
    return image, labels


def edges(image):
    """The box around what is bright in an image `(C, H, W)`."""
    rows, columns = (image[0] > 0.5).nonzero(as_tuple=True)
    return [columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1]


def test_resized_boxes_lie_where_they_are_in_the_resized_image():
    image, labels = marked([(20, 10, 60, 50)])
    transform = BoxTransform(SPEC)
    inputs, moved = transform.collate_with([transform.geometry(image)], labels)
    assert inputs.shape == (1, 3, 64, 64), "48 x 64 padded to multiples of 32"
    assert moved.sizes.tolist() == [[48, 64]]
    assert moved.boxes[0].tolist() == [[10, 5, 30, 25]]
    assert edges(inputs[0]) == [10, 5, 30, 25]
    assert moved.restored().boxes[0].tolist() == [[20, 10, 60, 50]]


@pytest.mark.parametrize("name", ["light", "crop"])
def test_augmented_boxes_follow_what_they_mark(name):
    image, labels = marked([(40, 30, 90, 70)])
    transform = BoxTransform(SPEC, name)
    transform.augment.colour = torch.nn.Identity()  # which could darken what is measured
    resized, seen = transform.geometry(image), set()
    for seed in range(12):
        torch.manual_seed(seed)
        inputs, moved = transform.collate_with([resized], labels)
        seen.add(str(moved.boxes[0].tolist()))
        if len(moved.boxes[0]):
            assert torch.tensor(edges(inputs[0])).sub(moved.boxes[0][0]).abs().max() <= 1.5
    assert len(seen) >= (2 if name == "light" else 8)


def test_a_crop_drops_boxes_that_are_mostly_outside():
    image, labels = marked([(0, 0, 8, 8), (100, 80, 120, 92)])
    transform, kept = BoxTransform(SPEC, "crop"), []
    for seed in range(20):
        torch.manual_seed(seed)
        _, moved = transform.collate_with([transform.geometry(image)], labels)
        kept.append(moved.classes[0].tolist())
        inside = torch.tensor([0, 0, 64, 48]).float()
        assert (moved.boxes[0][:, :2] >= inside[:2]).all()
        assert (moved.boxes[0][:, 2:] <= inside[2:]).all()
    assert [0, 1] in kept
    assert min(map(len, kept)) < 2


def test_a_batch_is_padded_below_and_at_the_right():
    images = [marked([(0, 0, 96, 96)], (96, 96))[0], marked([(0, 0, 128, 96)])[0]]
    transform = BoxTransform(SPEC)
    inputs = transform.collate([transform.geometry(one) for one in images])
    assert inputs.shape == (2, 3, 64, 64)
    assert edges(inputs[0]) == [0, 0, 48, 48]
    assert edges(inputs[1]) == [0, 0, 64, 48]


def test_the_longer_side_is_at_most_twice_the_shorter_one():
    long = torch.zeros(3, 50, 400, dtype=torch.uint8)
    assert ShorterSide(48)(long).shape == (3, 12, 96)
    assert ShorterSide(48)(torch.zeros(3, 24, 30, dtype=torch.uint8)).shape == (3, 48, 60), "small images grow"


def test_an_augmentation_that_moves_no_boxes_is_refused():
    with pytest.raises(GraftError, match=r"data.augment=randaugment.*none, light, crop"):
        BoxTransform(SPEC, "randaugment")
