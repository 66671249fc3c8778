import pytest
import torch
from torchvision.transforms import v2

from graft.inputs.image.geometry import Geometry


def random_images(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("size", "augment", "shape"),
    [
        ((32, 32), "light", (32, 32)),
        ((96, 80), "none", (96, 80)),
        ((96, 80), "crop", (120, 100)),
        ((224, 224), "crop", (239, 239)),
    ],
)
def test_the_shape_is_known_before_an_image_is_seen(size, augment, shape):
    geometry = Geometry(size, augment)
    assert geometry.shape == shape
    assert geometry(random_images(3, 140, 200)).shape == (3, *shape)
    assert geometry.batch([random_images(1, 50, 60), random_images(1, 400, 90)]).shape == (2, 1, *shape)


def test_evaluation_is_imagenets_resize_and_crop():
    image = random_images(3, 150, 201)
    expected = v2.Compose([v2.Resize(110), v2.CenterCrop(96)])(image)
    assert torch.equal(Geometry((96, 96))(image), expected)


def test_only_images_much_larger_than_a_crop_are_reduced():
    geometry = Geometry((96, 96), "light")
    large, small = geometry.batch([random_images(3, 500, 400), random_images(3, 192, 300)])
    assert large.shape == (3, 240, 192)
    assert torch.equal(small, random_images(3, 192, 300))


@pytest.mark.parametrize("augment", ["none", "crop", "light"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_is_what_its_images_are_one_by_one(augment, channels):
    geometry, images = Geometry((96, 96), augment), random_images(3, channels, 230, 310)
    assert torch.equal(geometry(images), torch.stack([geometry(image) for image in images]))


def test_its_name_tells_it_from_others():
    settings = [((32, 32), "none"), ((96, 96), "none"), ((96, 96), "crop"), ((96, 96), "light"), ((128, 128), "light")]
    assert len({repr(Geometry(*setting)) for setting in settings}) == len(settings)
    assert repr(Geometry((32, 32), "light")) == repr(Geometry((32, 32))), "small images are only resized"
