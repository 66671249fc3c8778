"""Random changes of uint8 images, drawn for each image of a batch at once from torch's global generator.

The distributions are those of torchvision's transforms of the same names, which take one image at a time.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from graft.inputs.image.geometry import SMALL

Images = Tensor | Sequence[Tensor]  # uint8 (B, C, H, W), or B images (C, H, W) of any sizes
DEGREES, TRANSLATE, SCALE, SHEAR = 10.0, 0.08, (0.9, 1.1), 8.0  # of small images; shifts in sides, angles either way
AREA, RATIO = (0.35, 1.0), (3 / 4, 4 / 3)  # of a photo's crop, before it is resized
ATTEMPTS = 10  # to draw a crop that fits into the image


class Augmentation:
    """Images that `Geometry` has resized, to uint8 `(B, C, *size)`.

    `slow` says whether something is computed image by image, so that worker processes are worth their while.
    """

    def __init__(self, size: tuple[int, int], augment: str) -> None:
        self._steps = _steps(size, augment)
        self.slow = augment == "randaugment" or (augment == "light" and max(size) > SMALL)

    def __call__(self, images: Any) -> Tensor:
        """Change a batch."""
        for step in self._steps:
            images = step(images)
        return images


def _steps(size: tuple[int, int], augment: str) -> list[Callable[[Any], Any]]:
    crop: Callable[[Any], Any] = functools.partial(random_crop, size=size)
    resized_crop: Callable[[Any], Any] = functools.partial(random_resized_crop, size=size)
    edges: Callable[[Any], Any] = v2.Pad(max(size) // 8, padding_mode="edge")
    if max(size) <= SMALL:
        small: dict[str, list[Callable[[Any], Any]]] = {
            "light": [random_affine],
            "crop": [edges, crop],
            "randaugment": [rand_augment],
        }
        return small[augment]
    large: dict[str, list[Callable[[Any], Any]]] = {
        "light": [resized_crop, random_flip],
        "crop": [crop, random_flip],
        "randaugment": [resized_crop, random_flip, rand_augment],
    }
    return large[augment]


def random_affine(images: Tensor) -> Tensor:
    """Images `(B, C, H, W)` each turned, moved, scaled and sheared a little, black around."""
    height, width = images.shape[-2:]
    number = len(images)
    angle, shear = DEGREES * either_way(number), SHEAR * either_way(number)
    shift = (either_way(number, 2) * TRANSLATE * torch.tensor([width, height])).round()
    scale = uniform(number, *SCALE)
    return affine(images, angle, shift, scale, shear)


def affine(images: Tensor, angle: Tensor, shift: Tensor, scale: Tensor, shear: Tensor) -> Tensor:
    """What `v2.functional.affine` gives image by image: degrees, pixels `(B, 2)` in x and y, factor, degrees in x."""
    height, width = images.shape[-2:]
    angle, slope = angle.deg2rad(), shear.deg2rad().tan()
    cos, sin = angle.cos(), angle.sin()
    # From pixels of the result to those of the image: back by the shift, by the angle, by the shear and by the scale.
    turn = torch.stack([cos - slope * sin, sin + slope * cos, -sin, cos], 1).view(-1, 2, 2) / scale[:, None, None]
    theta = torch.cat([turn, -turn @ shift[:, :, None]], 2)
    half = torch.tensor([width / 2, height / 2])  # the grid counts in halves of the image
    theta = theta * torch.cat([half, torch.ones(1)]) / half[:, None]
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, align_corners=False).round().to(torch.uint8)


def random_crop(images: Images, size: tuple[int, int]) -> Tensor:
    """A window of `size` from each image, every place as likely."""
    height, width = size
    sides = sides_of(images)
    tops, lefts = random_offsets(sides[:, 0] - height), random_offsets(sides[:, 1] - width)
    # Slices, because gather takes some ten times as long, one index a pixel.
    return torch.stack([image[:, y : y + height, x : x + width] for image, y, x in rows(images, tops, lefts)])


def random_resized_crop(images: Images, size: tuple[int, int]) -> Tensor:
    """A window of random area and shape from each image, resized to `size`."""
    boxes = crop_boxes(sides_of(images))
    return torch.stack(
        [v2.functional.resized_crop(image, *box, size=list(size), antialias=True) for image, box in rows(images, boxes)]
    )


def crop_boxes(sides: Tensor) -> Tensor:
    """Top, left, height and width `(B, 4)` of a crop from images of `sides` `(B, 2)`, as RandomResizedCrop draws them.

    A crop that does not fit is drawn again, at most ATTEMPTS times; then the middle is taken.
    """
    attempts = (ATTEMPTS, len(sides))
    area = sides.prod(1) * uniform(attempts, *AREA)
    ratio = uniform(attempts, *(math.log(limit) for limit in RATIO)).exp()
    drawn = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], 2).round().long()  # (ATTEMPTS, B, 2)
    fits = ((drawn > 0) & (drawn <= sides)).all(2)
    first = fits.int().argmax(0)
    chosen = drawn[first, torch.arange(len(sides))]
    low, high = RATIO
    middle = torch.minimum(sides, (sides.flip(1) * torch.tensor([1 / low, high])).round().long())
    found = fits.any(0)[:, None]
    box = torch.where(found, chosen, middle)
    return torch.cat([torch.where(found, random_offsets(sides - box), (sides - box) // 2), box], 1)


def random_flip(images: Tensor) -> Tensor:
    """Every second image or so mirrored."""
    flips = torch.rand(len(images)) < 0.5
    return torch.stack([image.flip(-1) if flip else image for image, flip in rows(images, flips)])


def rand_augment(images: Images) -> Tensor:
    """torchvision's RandAugment of each image."""
    change = v2.RandAugment()
    return torch.stack([change(image) for image in images])


def sides_of(images: Images) -> Tensor:
    """Height and width `(B, 2)` of every image."""
    if isinstance(images, Tensor):
        return torch.tensor(images.shape[-2:]).expand(len(images), 2)
    return torch.tensor([image.shape[-2:] for image in images])


def rows(images: Images, *drawn: Tensor) -> Iterable[tuple]:
    """Every image with what was drawn for it, as plain numbers."""
    return zip(images, *(values.tolist() for values in drawn), strict=True)


def random_offsets(room: Tensor) -> Tensor:
    """A whole number from 0 to `room` for each of its elements, all as likely."""
    return (torch.rand(room.shape, dtype=torch.float64) * (room + 1)).long()


def uniform(shape: int | tuple[int, ...], low: float, high: float) -> Tensor:
    """Numbers between two limits."""
    return torch.empty(shape).uniform_(low, high)


def either_way(*shape: int) -> Tensor:
    """Numbers from -1 to 1."""
    return uniform(shape, -1.0, 1.0)
