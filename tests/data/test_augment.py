"""Changes drawn for a whole batch have the distributions of torchvision's, which draws for one image at a time."""

import pytest
import torch
from torchvision.transforms import v2

from graft.inputs.image.augment import (
    AREA,
    Augmentation,
    affine,
    crop_boxes,
    random_affine,
    random_crop,
    random_flip,
    random_offsets,
    random_resized_crop,
)


def random_images(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("size", [(28, 28), (20, 32)])
def test_affine_is_torchvisions_for_each_image(size):
    images = random_images(4, 3, *size)
    angle, shear = torch.tensor([0.0, 10.0, -7.0, 3.0]), torch.tensor([8.0, 0.0, -4.0, 2.0])
    scale, shift = torch.tensor([1.0, 0.9, 1.1, 1.05]), torch.tensor([[0.0, 0.0], [2.0, -1.0], [0.0, 1.0], [-2.0, 2.0]])
    bilinear = {"interpolation": v2.InterpolationMode.BILINEAR}
    for i, result in enumerate(affine(images, angle, shift, scale, shear)):
        drawn = {"angle": angle[i].item(), "translate": shift[i].tolist(), "scale": scale[i].item()}
        expected = v2.functional.affine(images[i], **drawn, shear=[shear[i].item(), 0.0], **bilinear)
        assert (result.int() - expected.int()).abs().max() <= 1


@pytest.mark.slow
def test_affine_draws_what_random_affine_draws():
    """The centre and spread of a dot that is off the middle, over many draws."""
    image = torch.zeros(1, 1, 50, 50)
    image[..., 10:15, 35:40] = 255
    images = image.to(torch.uint8).expand(3000, -1, -1, -1)
    one = v2.RandomAffine(10, (0.08, 0.08), (0.9, 1.1), 8, interpolation=v2.InterpolationMode.BILINEAR)
    ours, theirs = moments(random_affine(images)), moments(torch.stack([one(i) for i in images]))
    assert (ours[0] - theirs[0]).abs().max() < 0.25, "pixels"
    assert (ours[1] / theirs[1] - 1).abs().max() < 0.08
    assert (ours[2] - theirs[2]).abs().max() < 0.1, "pixels"


def moments(images):
    """Mean and standard deviation of the places of the dots, and extremes of them, in x and y."""
    weights = images[:, 0].float() / images.float().sum((1, 2, 3))[:, None, None]
    positions = torch.arange(images.shape[-1]).float()
    dots = torch.stack([(weights.sum(1) * positions).sum(1), (weights.sum(2) * positions).sum(1)], 1)
    return dots.mean(0), dots.std(0), dots.quantile(torch.tensor([0.05, 0.95]), 0).mean(0)


def test_places_are_all_as_likely_and_both_ends_are_among_them():
    drawn = random_offsets(torch.tensor([0, 3]).repeat(4000, 1))
    assert (drawn[:, 0] == 0).all()
    shares = drawn[:, 1].bincount() / len(drawn)
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.03)


@pytest.mark.parametrize(
    "images", [random_images(6, 3, 12, 16), [random_images(3, 12, 16)] * 6], ids=["tensor", "list"]
)
def test_crops_are_windows_of_the_image(images):
    for crop, image in zip(random_crop(images, (8, 10)), images, strict=True):
        windows = image.unfold(1, 8, 1).unfold(2, 10, 1).movedim(0, 2)
        assert (windows == crop).all((2, 3, 4)).any()


def test_small_images_are_moved_by_an_eighth_with_edges_repeated():
    image = torch.arange(16, dtype=torch.uint8).repeat(16, 1)[None, None]
    moved = Augmentation((16, 16), "crop")(image.expand(500, -1, -1, -1))
    shift = moved[:, 0, 8, 8].int() - 8
    assert shift.unique().tolist() == [-2, -1, 0, 1, 2]
    assert moved[shift == -2][0, 0, 0].tolist() == [0, 0, *range(14)]


@pytest.mark.parametrize("sides", [(60, 90), (300, 60), (50, 50)])
def test_boxes_are_drawn_as_random_resized_crop_draws_them(sides):
    one = v2.RandomResizedCrop(10, scale=AREA)
    image = torch.zeros(1, *sides)
    theirs = [one.make_params([image]) for _ in range(3000)]
    theirs = torch.tensor([[box[name] for name in ("top", "left", "height", "width")] for box in theirs])
    ours = torch.tensor(crop_boxes([sides] * 3000))
    assert (ours >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= torch.tensor(sides)).all()
    tolerance = 0.02 * max(sides)
    for statistic in (torch.mean, torch.std):
        assert (statistic(ours.float(), 0) - statistic(theirs.float(), 0)).abs().max() < tolerance
    assert (ours.amax(0) - theirs.amax(0)).abs().max() <= 2 * tolerance


def test_a_resized_crop_is_torchvisions_of_the_same_box():
    images = [random_images(3, 40, 60), random_images(3, 90, 50)]
    crops = random_resized_crop(images, (24, 20))
    torch.manual_seed(0)
    for crop, image, box in zip(crops, images, crop_boxes([(40, 60), (90, 50)]), strict=True):
        assert torch.equal(crop, v2.functional.resized_crop(image, *box, size=[24, 20]))


def pixel_by_pixel(image):
    """The image as a decoder leaves it: colours side by side in memory."""
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)


@pytest.mark.parametrize("order", [torch.Tensor.contiguous, pixel_by_pixel], ids=["planes", "pixels"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_mirrored_crop_is_the_mirror_image_of_the_plain_one(order, channels):
    images = [order(random_images(channels, 70, 50))] * 20
    plain = random_resized_crop(images, (24, 20))
    torch.manual_seed(0)
    crops = random_resized_crop(images, (24, 20), mirror=True)
    mirrored = [torch.equal(crop, one.flip(-1)) for crop, one in zip(crops, plain, strict=True)]
    assert 0 < sum(mirrored) < 20
    assert all(flip or torch.equal(*pair) for flip, *pair in zip(mirrored, crops, plain, strict=True))
    assert crops.permute(0, 2, 3, 1).is_contiguous() or order is torch.Tensor.contiguous, "the order is left"


def test_crops_of_photos_in_a_batch_are_theirs_alone():
    """A window is read by the strides of its image, wherever that lies in memory."""
    batch = random_images(4, 3, 60, 40)
    torch.manual_seed(1)
    apart = random_resized_crop([image.clone() for image in batch], (24, 20))
    torch.manual_seed(1)
    assert torch.equal(random_resized_crop(batch, (24, 20)), apart)


def test_half_of_the_images_are_mirrored():
    image = random_images(1, 3, 4, 5)
    mirrored = (random_flip(image.expand(2000, -1, -1, -1)) == image.flip(-1)).all((1, 2, 3))
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.04)
    assert torch.equal(
        random_flip(image.expand(50, -1, -1, -1)).unique(dim=0), torch.cat([image, image.flip(-1)]).unique(dim=0)
    )


@pytest.mark.parametrize(
    ("size", "augment", "slow"),
    [((32, 32), "light", False), ((32, 32), "randaugment", True), ((96, 96), "crop", False), ((96, 96), "light", True)],
)
def test_what_goes_image_by_image_is_slow(size, augment, slow):
    assert Augmentation(size, augment).slow is slow
