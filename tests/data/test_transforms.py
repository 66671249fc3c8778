import pytest
import torch
from torchvision.transforms import v2

from graft.errors import GraftError
from graft.inputs.image.augment import Augmentation
from graft.inputs.image.transform import AUGMENTATIONS, BLUR, ImageSpec, ImageTransform, convert_channels


def spec(channels=3, size=(32, 32), mean=None, std=None, **order):
    return ImageSpec(channels, size, mean or (0.0,) * channels, std or (1.0,) * channels, **order)


def random_images(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_values_are_scaled_and_normalized():
    images = torch.full((2, 3, 32, 32), 255, dtype=torch.uint8)
    out = ImageTransform(spec(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0)))(images)
    assert out.dtype == torch.float32
    assert out[0, :, 0, 0].tolist() == pytest.approx([1.0, 3.0, 0.5])


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_decoded_photos_stay_pixel_by_pixel_for_a_network_that_takes_them_so(channels_last, channels):
    photos = [random_images(100, 90, channels).permute(2, 0, 1), random_images(130, 120, channels).permute(2, 0, 1)]
    seen = spec(3, (96, 80), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), channels_last=channels_last)
    torch.manual_seed(0)
    batch = ImageTransform(seen, "light")(photos)
    torch.manual_seed(0)
    crops = convert_channels(Augmentation((96, 80), "light")(photos), 3)
    usual = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(seen.mean, seen.std)])
    assert torch.equal(batch, usual(crops)), "to the bit"
    by_pixel = channels_last and channels == 3  # grey ones have one value a pixel
    assert batch.is_contiguous(memory_format=torch.channels_last if by_pixel else torch.contiguous_format)


@pytest.mark.parametrize(("size", "threads"), [((96, 96), 1), ((32, 32), 2)])
def test_what_goes_image_by_image_runs_in_one_thread(size, threads, request):
    """Beside other programs, handing out each of these small pieces of work took ten times as long as doing them."""
    seen = []

    class Noted(Augmentation):
        def __call__(self, images):
            seen.append(torch.get_num_threads())
            return super().__call__(images)

    request.addfinalizer(lambda: torch.set_num_threads(1))
    torch.set_num_threads(2)
    transform = ImageTransform(spec(size=size), "light")
    transform.augment = Noted(size, "light")
    transform(random_images(2, 3, 100, 100))
    assert (seen, torch.get_num_threads()) == ([threads], 2)


@pytest.mark.parametrize("augment", AUGMENTATIONS)
@pytest.mark.parametrize("size", [(32, 32), (96, 80)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_sizes_come_out_as_the_spec_says(augment, size, channels):
    images = [random_images(channels, 40, 90), random_images(channels, 200, 100)]
    assert ImageTransform(spec(3, size), augment)(images).shape == (2, 3, *size)


def test_small_images_are_kept_whole_and_photos_cropped():
    left = torch.zeros(1, 1, 100, 200, dtype=torch.uint8)
    left[..., :30] = 255  # a white edge that only a crop loses
    assert ImageTransform(spec(1))(left).max() > 0.9
    assert ImageTransform(spec(1, (96, 96)))(left).max() == 0


def test_a_tensor_gives_what_its_images_give_one_by_one():
    images = random_images(3, 1, 8, 8)
    transform = ImageTransform(spec(1))
    assert torch.equal(transform(images), transform(list(images)))


@pytest.mark.parametrize("augment", ["light", "randaugment"])
def test_augmentation_follows_the_random_state_and_differs_between_images(augment):
    images = random_images(1, 1, 28, 28).expand(4, -1, -1, -1)
    transform = ImageTransform(spec(1), augment)
    torch.manual_seed(3)
    first = transform(images)
    torch.manual_seed(3)
    assert torch.equal(first, transform(images))
    assert not torch.equal(first[0], first[1]) or not torch.equal(first[2], first[3])


def test_light_does_not_mirror_symbols():
    image = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    image[..., :6] = 255
    out = ImageTransform(spec(1), "light")(image.expand(30, -1, -1, -1))
    assert (out[..., :14].mean((1, 2, 3)) > out[..., 14:].mean((1, 2, 3))).all()


def test_channels():
    colour = random_images(2, 3, 4, 4)
    assert convert_channels(colour, 3) is colour
    assert convert_channels(colour, 1).shape == (2, 1, 4, 4)
    grey = convert_channels(colour, 1)
    assert convert_channels(grey, 3)[:, 2].equal(grey[:, 0])
    clear = torch.cat([colour, torch.zeros(2, 1, 4, 4, dtype=torch.uint8)], 1)
    assert (convert_channels(clear, 3) == 255).all(), "transparent is white"
    with pytest.raises(GraftError, match="2 channels cannot feed a backbone of 3"):
        convert_channels(random_images(1, 2, 4, 4), 3)


def test_unknown_augmentation_lists_the_known():
    with pytest.raises(GraftError, match=r"data\.augment='strong'.*none, light, crop, randaugment"):
        ImageTransform(spec(), "strong")


# Shifts of the test images


def test_shifts_of_another_kind_are_refused():
    with pytest.raises(
        GraftError, match=r"data\.test_shifts=\[telephone\]: it is not for images\. Allowed: colour, blur"
    ):
        ImageTransform(spec(), shift="telephone")


def test_the_colour_shift_turns_the_hue_and_keeps_the_shapes():
    red = torch.tensor([200, 40, 40], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 96, 96)
    (out,) = ImageTransform(spec(size=(96, 96)), shift="colour")(red)
    assert out.std((1, 2)).max() == pytest.approx(0, abs=1e-6)
    r, g, b = out.mean((1, 2)).tolist()
    assert r > g > b  # a red turned towards orange
    assert r < 200 / 255
    grey = ImageTransform(spec(1), shift="colour")(torch.full((1, 1, 32, 32), 100, dtype=torch.uint8))
    assert grey.mean().item() == pytest.approx(80 / 255, abs=0.01)


def test_the_blur_shift_is_a_gaussian_of_the_images_size():
    point = torch.zeros(1, 1, 128, 128, dtype=torch.uint8)
    point[..., 44:84, 44:84] = 255
    edge = ImageTransform(spec(1, (32, 32)), shift="blur")(point)[0, 0, 16] * 255  # sigma is half a pixel at 32
    plain = ImageTransform(spec(1, (32, 32)))(point)[0, 0, 16] * 255
    kernel = torch.exp(-(torch.arange(-2, 3) ** 2) / (2 * (32 * BLUR) ** 2))
    expected = torch.nn.functional.conv1d(plain[None, None], (kernel / kernel.sum())[None, None], padding=2)[0, 0]
    torch.testing.assert_close(edge[2:-2], expected[2:-2], atol=1.0, rtol=0)
