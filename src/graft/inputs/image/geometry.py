"""What happens to an image before anything random: it is the same in every epoch, so it can be done once and kept."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2

SMALL = 64  # pixels; up to here images are symbols rather than photos: resized whole, never mirrored
CROP_FRACTION = 0.875  # the share of the shorter side that ImageNet practice keeps


class Geometry:
    """Images uint8 `(..., C, H, W)` of any size to uint8 images that augmentation starts from.

    `shape` is their `(H, W)`, None where every image keeps its own; `shorter` is the shorter side, in pixels, that
    decoding has to give.
    """

    shape: tuple[int, int] | None

    def __init__(self, size: tuple[int, int], augment: str = "none") -> None:
        """`size` `(H, W)` is what the backbone sees."""
        height, width = size
        if max(size) <= SMALL:
            self.shape, self.shorter = (height, width), max(size)
            self._steps = v2.Resize([height, width])
        elif augment == "none":
            self.shape, self.shorter = (height, width), math.ceil(max(size) / CROP_FRACTION)
            self._steps = v2.Compose([v2.Resize(self.shorter), v2.CenterCrop([height, width])])
        elif augment == "crop":
            # BiT's sides: 160 for a crop of 128, 512 for one of 480
            factor = 1.25 if max(size) <= 128 else 512 / 480
            self.shape = (max(round(height * factor), height), max(round(width * factor), width))
            self.shorter = max(self.shape)
            self._steps = v2.Resize(list(self.shape))
        else:
            # Crops of random size are cut from the image itself; nothing is lost by twice the size that they get.
            self.shape, self.shorter = None, 2 * max(size)
            self._steps = v2.Resize(self.shorter)

    def __call__(self, images: Tensor) -> Tensor:
        """Fit one image or several of the same size."""
        if self.shape is None:
            fits = min(images.shape[-2:]) <= self.shorter
        else:
            fits = isinstance(self._steps, v2.Resize) and images.shape[-2:] == self.shape
        return images if fits else self._steps(images)

    def batch(self, images: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Fit a batch: a tensor `(B, C, H, W)`, or images of any sizes, which stay a list where each keeps its own."""
        if isinstance(images, Tensor):
            return self(images)
        resized = [self(image) for image in images]
        return resized if self.shape is None else torch.stack(resized)

    def __repr__(self) -> str:
        """What tells one geometry from another, as cache entries are named by it."""
        return f"Geometry({self.shape}, {self.shorter})"
