"""What an image backbone wants to see, and from uint8 images of any size and channels to it."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torchvision.transforms import v2

from graft.cache.disk import DiskCache
from graft.data.samples import Split
from graft.data.threads import one_thread
from graft.errors import GraftError
from graft.inputs.base import Prepared
from graft.inputs.image.augment import Augmentation
from graft.inputs.image.decoded import resized_images
from graft.inputs.image.geometry import Geometry


@dataclass(frozen=True)
class ImageSpec:
    """Channels, `(height, width)` in pixels, normalisation of values in [0, 1].

    `channels_last`: a batch may have the channels of a pixel side by side. It changes no value, and so no key.
    """

    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels_last: bool = field(default=False, repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.channels} x {self.size[0]} x {self.size[1]} pixels"

    def transform(self, augment: str = "none", shift: str | None = None) -> Any:
        """Images of any size and channels as this network wants them."""

        return ImageTransform(self, augment, shift)


AugmentName = Literal["none", "light", "crop", "randaugment"]
AUGMENTATIONS = get_args(AugmentName)
HUE, SATURATION, BRIGHTNESS = 0.1, 0.6, 0.8  # the colour shift: turn of the hue circle, and factors
BLUR = 1 / 64  # the blur shift: standard deviation over the image's longer side


class ImageTransform:
    """Images uint8 `(C, H, W)`, as a tensor `(B, C, H, W)` or a list of any sizes, to float `(B, channels, *size)`.

    `geometry` comes first and is never random, so that its result can be kept; `collate` does the rest.
    """

    def __init__(self, spec: ImageSpec, augment: str = "none", shift: str | None = None) -> None:
        if augment not in AUGMENTATIONS:
            raise GraftError(f"data.augment={augment!r} is not for images. Allowed: {', '.join(AUGMENTATIONS)}.")
        if shift is not None and shift not in SHIFTS:
            raise GraftError(f"data.test_shifts=[{shift}]: it is not for images. Allowed: {', '.join(SHIFTS)}.")
        self.channels = spec.channels
        self.geometry = Geometry(spec.size, augment)
        self.augment = None if augment == "none" else Augmentation(spec.size, augment)
        self.shift = shift
        self.mean, self.std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.channels_last = spec.channels_last

    def __call__(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Transform a batch."""
        return self.collate(self.geometry.batch(images))

    @property
    def key(self) -> str:
        """The geometry in words."""
        return repr(self.geometry)

    def prepare(self, split: Split, cache: DiskCache | None) -> Prepared:
        """The split's images after the geometry."""
        return resized_images(split, self.geometry, cache)

    def collate(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Transform a batch of images that the geometry has resized; only here is something random drawn."""
        with one_thread() if self.augment is not None and self.augment.slow else nullcontext():
            # Without augmentation the geometry has made all images one size, and a tensor.
            images = convert_channels(self.augment(images) if self.augment else cast(Tensor, images), self.channels)
            return self.normalize(images if self.shift is None else SHIFTS[self.shift](images))

    def normalize(self, images: Tensor) -> Tensor:
        """Images uint8 as float: to the bit what `v2.ToDtype` with `scale` and `v2.Normalize` give."""
        if not (self.channels_last and images.is_contiguous(memory_format=torch.channels_last)):
            planes = torch.empty(images.shape).copy_(images)
            return planes.mul_(1 / 255).sub_(self.mean[:, None, None]).div_(self.std[:, None, None])
        # A number for each channel is slow where channels lie side by side: it is repeated for a line of pixels.
        mean, std = (values.repeat(images.shape[-1]) for values in (self.mean, self.std))
        lines = images.permute(0, 2, 3, 1).flatten(2).to(torch.float32).mul_(1 / 255).sub_(mean).div_(std)
        return lines.unflatten(2, (-1, self.channels)).permute(0, 3, 1, 2)


def convert_channels(images: Tensor, channels: int) -> Tensor:
    """Images uint8 `(B, C, H, W)` in other channels: grey repeated, colour made grey, transparency over white."""
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 4:
        colour, alpha = images[:, :3].float(), images[:, 3:].float() / 255
        images = (colour * alpha + 255 * (1 - alpha)).round().to(torch.uint8)
    if images.shape[1] == 3 and channels == 1:
        return v2.functional.rgb_to_grayscale(images)
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1)
    if images.shape[1] != channels:
        raise GraftError(
            f"Images of {images.shape[1]} channels cannot feed a backbone of {channels} channels. "
            "Set backbone.channels=auto, so that the backbone takes what the data have."
        )
    return images


def shift_colour(images: Tensor) -> Tensor:
    """Images uint8 `(B, C, H, W)` under another light: hue and saturation where they have colour, and brightness."""
    if images.shape[1] == 3:
        images = v2.functional.adjust_saturation(v2.functional.adjust_hue(images, HUE), SATURATION)
    return v2.functional.adjust_brightness(images, BRIGHTNESS)


def shift_blur(images: Tensor) -> Tensor:
    """Images uint8 `(B, C, H, W)` out of focus."""
    sigma = BLUR * max(images.shape[-2:])
    return v2.functional.gaussian_blur(images, 2 * math.ceil(3 * sigma) + 1, [sigma, sigma])


SHIFTS = {"colour": shift_colour, "blur": shift_blur}  # the same change of every test image: nothing random
