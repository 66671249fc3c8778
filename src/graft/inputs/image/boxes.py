"""Images and their boxes together: resized to a shorter side, changed at random, padded to one size a batch."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from graft.cache.disk import DiskCache
from graft.data.boxes import MULTIPLE, Boxes
from graft.data.samples import Split
from graft.errors import GraftError
from graft.inputs.base import Prepared
from graft.inputs.image.augment import uniform
from graft.inputs.image.decoded import resized_images
from graft.inputs.image.geometry import Geometry
from graft.inputs.image.transform import ImageSpec, convert_channels

LONGEST = 2  # the longer side over the shorter one, at most
BOX_AUGMENTATIONS = ("none", "light", "crop")
AREA = (0.4, 1.0)  # of a random crop
VISIBLE = 0.3  # the share of a box's area from which a crop keeps the box
COLOUR = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.02}


class ShorterSide(Geometry):
    """Images of any size with a shorter side of `size`, as long as the longer one is at most LONGEST times as long."""

    def __init__(self, size: int) -> None:
        self.shape, self.shorter = None, size
        self._steps = v2.Resize(size, max_size=LONGEST * size)

    def __call__(self, images: Tensor) -> Tensor:
        """Resize one image; a small one grows."""
        return self._steps(images)

    def sizes(self, original: Tensor) -> Tensor:
        """Heights and widths `(N, 2)` of images that had `original` ones, to a pixel."""
        short, long = original.amin(1), original.amax(1)
        scale = torch.minimum(self.shorter / short, LONGEST * self.shorter / long)
        return (original * scale[:, None]).round().long()

    def __repr__(self) -> str:
        """What tells one geometry from another."""
        return f"ShorterSide({self.shorter}, {LONGEST})"


class BoxTransform:
    """Images uint8 `(C, H, W)` of any size to float `(B, channels, H, W)`, and boxes in their pixels.

    Images are as large as they are; a batch is padded at the right and below with what is 0 for the network.
    """

    def __init__(self, spec: ImageSpec, augment: str = "none") -> None:
        if augment not in BOX_AUGMENTATIONS:
            raise GraftError(
                f"data.augment={augment}: boxes cannot be moved with it. Allowed with task=detection: "
                f"{', '.join(BOX_AUGMENTATIONS)}."
            )
        self.channels = spec.channels
        self.geometry = ShorterSide(min(spec.size))
        self.augment = None if augment == "none" else BoxAugmentation(cast(Literal["light", "crop"], augment))
        self.key = repr(self.geometry)
        self.normalize = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(spec.mean, spec.std)])

    def prepare(self, split: Split, cache: DiskCache | None) -> Prepared:
        """The split's images after the geometry."""
        return resized_images(split, self.geometry, cache)

    def collate(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """A batch of images as they are."""
        return self.padded([self.normalize(convert_channels(image.unsqueeze(0), self.channels))[0] for image in images])

    def padded(self, images: Sequence[Tensor]) -> Tensor:
        """Images `(C, h, w)` as one batch `(B, C, H, W)`, with 0 at the right and below."""
        height, width = (math.ceil(max(image.shape[side] for image in images) / MULTIPLE) * MULTIPLE for side in (1, 2))
        batch = images[0].new_zeros(len(images), self.channels, height, width)
        for place, image in zip(batch, images, strict=True):
            place[:, : image.shape[1], : image.shape[2]] = image
        return batch

    def collate_with(self, images: Sequence[Tensor], labels: Boxes) -> tuple[Tensor, Boxes]:
        """A batch of images and their boxes, changed together; only here is something random drawn."""
        labels = labels.resized(torch.tensor([image.shape[-2:] for image in images]))
        if self.augment is None:
            return self.collate(images), labels
        moved = [self.augment(*one) for one in zip(images, labels.boxes, labels.classes, strict=True)]
        boxes = replace(labels, boxes=[one[1] for one in moved], classes=[one[2] for one in moved])
        return self.collate([image for image, *_ in moved]), boxes


class BoxAugmentation:
    """Mirrored and in another light; `crop` also a random part at full size. Boxes move along."""

    slow = True

    def __init__(self, name: Literal["light", "crop"]) -> None:
        self.crops = name == "crop"
        self.flip = v2.RandomHorizontalFlip()
        self.colour = v2.ColorJitter(**COLOUR)

    def __call__(self, image: Tensor, boxes: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """An image uint8 `(C, H, W)`, its boxes `(n, 4)` in pixels and classes `(n,)`; boxes out of sight go."""
        size = tuple(image.shape[-2:])
        wrapped: Any = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size)
        image, wrapped = self.flip(image, wrapped)
        if image.shape[0] in (1, 3):
            image = self.colour(image)
        if not self.crops:
            return image, wrapped.as_subclass(Tensor), classes
        window = random_window(size)
        visible = areas(v2.functional.crop(wrapped, *window)) >= VISIBLE * areas(wrapped)
        image = v2.functional.resized_crop(image, *window, size=list(size), antialias=True)
        wrapped = v2.functional.resized_crop(wrapped, *window, size=list(size))
        return image, v2.functional.clamp_bounding_boxes(wrapped).as_subclass(Tensor)[visible], classes[visible]


def random_window(size: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part of an image `(H, W)`, in the image's shape."""
    side = float(uniform(1, *AREA).sqrt())
    height, width = (max(1, round(side * length)) for length in size)
    top, left = (
        int(torch.randint(0, length - part + 1, ())) for length, part in zip(size, (height, width), strict=True)
    )
    return top, left, height, width


def areas(boxes: Any) -> Tensor:
    """Areas `(n,)` of what of the boxes `(n, 4)` lies inside of their canvas."""
    inside = v2.functional.clamp_bounding_boxes(boxes).as_subclass(Tensor)
    return (inside[:, 2:] - inside[:, :2]).clamp(min=0).prod(1)
