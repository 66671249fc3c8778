"""From uint8 images of any size and channels to what a backbone's input spec asks for."""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torchvision.transforms import v2

from graft.errors import GraftError

AUGMENTATIONS = ("none", "light", "randaugment")
SMALL = 64  # pixels; up to here images are symbols rather than photos: resized whole, never mirrored
CROP_FRACTION = 0.875  # the share of the shorter side that ImageNet practice keeps


class InputSpec(Protocol):
    """What a backbone wants to see: channels, size (H, W) in pixels, mean and std per channel of values in [0, 1]."""

    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Transform:
    """Images uint8 `(C, H, W)`, as a tensor `(B, C, H, W)` or a list of any sizes, to float `(B, channels, *size)`.

    Augmentation is drawn for each image; where there is none, a tensor is transformed whole, which is much faster.
    """

    def __init__(self, spec: InputSpec, augment: str = "none") -> None:
        self.channels = spec.channels
        self.random = augment != "none"
        self.fit = v2.Compose(_steps(spec.size, augment))
        self.normalize = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(spec.mean, spec.std)])

    def __call__(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Transform a batch."""
        whole = isinstance(images, Tensor) and not self.random
        images = self.fit(images) if whole else torch.stack([self.fit(image) for image in images])
        return self.normalize(convert_channels(images, self.channels))


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


def _steps(size: tuple[int, int], augment: str) -> list[v2.Transform]:
    """Geometry to exactly `size`, with the named augmentation in it."""
    if augment not in AUGMENTATIONS:
        raise GraftError(f"data.augment={augment!r} is not known. Allowed: {', '.join(AUGMENTATIONS)}.")
    if max(size) <= SMALL:
        resize = v2.Resize(size, antialias=True)
        light = v2.RandomAffine(degrees=10, translate=(0.08, 0.08), scale=(0.9, 1.1), shear=8)
        return {"none": [resize], "light": [resize, light], "randaugment": [resize, v2.RandAugment()]}[augment]
    crop = v2.RandomResizedCrop(size, scale=(0.35, 1.0), antialias=True)
    return {
        "none": [v2.Resize(math.ceil(max(size) / CROP_FRACTION), antialias=True), v2.CenterCrop(size)],
        "light": [crop, v2.RandomHorizontalFlip()],
        "randaugment": [crop, v2.RandomHorizontalFlip(), v2.RandAugment()],
    }[augment]
