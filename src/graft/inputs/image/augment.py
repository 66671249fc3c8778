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
    resized_crop: Callable[[Any], Any] = functools.partial(random_resized_crop, size=size, mirror=True)
    edges: Callable[[Any], Any] = v2.Pad(max(size) // 8, padding_mode="edge")
    if max(size) <= SMALL:
        small: dict[str, list[Callable[[Any], Any]]] = {
            "light": [random_affine],
            "crop": [edges, crop],
            "randaugment": [rand_augment],
        }
        return small[augment]
    large: dict[str, list[Callable[[Any], Any]]] = {
        "light": [resized_crop],
        "crop": [crop, random_flip],
        "randaugment": [resized_crop, rand_augment],
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
    sides = torch.tensor(sides_of(images))
    tops, lefts = random_offsets(sides[:, 0] - height), random_offsets(sides[:, 1] - width)
    # Slices, because gather takes some ten times as long, one index a pixel.
    return torch.stack([image[:, y : y + height, x : x + width] for image, y, x in rows(images, tops, lefts)])


def random_resized_crop(images: Images, size: tuple[int, int], mirror: bool = False) -> Tensor:
    """A window of random area and shape from each image, resized to `size`; with `mirror` every second or so mirrored.

    The resize is torch's own of uint8 images, antialiased. It is fastest where the colours of a pixel lie side by side
    (channels_last), as in images that were decoded, and so leaves them.
    """
    boxes = crop_boxes(sides_of(images))
    flips = coins(len(images)) if mirror else [False] * len(images)
    crops = []
    for image, box, flip in zip(images, boxes, flips, strict=True):
        window = window_of(image, *box)
        if flip:
            window = window.flip(-1)  # before it is resized, which gives the same: the resize copies a window anyway
        crops.append(F.interpolate(window, size=size, mode="bilinear", antialias=True))
    return torch.cat(crops)


def window_of(image: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """A part `(1, C, height, width)` of an image `(C, H, W)`, in one call of torch where slices take four."""
    channels, lines, pixels = image.stride()
    start = image.storage_offset() + top * lines + left * pixels
    return image.as_strided((1, image.shape[0], height, width), (image.numel(), channels, lines, pixels), start)


def crop_boxes(sides: Sequence[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """Top, left, height and width of a crop from each image of some height and width, as RandomResizedCrop draws them.

    A crop that does not fit is drawn again, at most ATTEMPTS times; then the middle is taken. Plain numbers, because
    a batch is so small that it is calls of torch that take the time.
    """
    attempts = (ATTEMPTS, len(sides))
    areas, log_ratios = uniform(attempts, *AREA), uniform(attempts, *map(math.log, RATIO))
    places = torch.rand(len(sides), 2, dtype=torch.float64)
    drawn = zip(sides, areas.T.tolist(), log_ratios.T.tolist(), places.tolist(), strict=True)
    return [crop_box(*one) for one in drawn]


def crop_box(
    sides: tuple[int, int], areas: Sequence[float], log_ratios: Sequence[float], place: tuple[float, float]
) -> tuple[int, int, int, int]:
    """The first crop that fits, of shares of the area and logarithms of width over height, at a place from 0 to 1."""
    height, width = sides
    for area, log_ratio in zip(areas, log_ratios, strict=True):
        side, stretch = math.sqrt(height * width * area), math.exp(log_ratio / 2)
        high, wide = round(side / stretch), round(side * stretch)
        if 0 < high <= height and 0 < wide <= width:
            return int(place[0] * (height - high + 1)), int(place[1] * (width - wide + 1)), high, wide
    low, high_ratio = RATIO
    high, wide = min(height, round(width / low)), min(width, round(height * high_ratio))
    return (height - high) // 2, (width - wide) // 2, high, wide


def random_flip(images: Tensor) -> Tensor:
    """Every second image or so mirrored."""
    flips = coins(len(images))
    return torch.stack([image.flip(-1) if flip else image for image, flip in zip(images, flips, strict=True)])


def rand_augment(images: Images) -> Tensor:
    """torchvision's RandAugment of each image."""
    change = v2.RandAugment()
    return torch.stack([change(image) for image in images])


def sides_of(images: Images) -> list[tuple[int, int]]:
    """Height and width of every image."""
    return [(image.shape[1], image.shape[2]) for image in images]


def rows(images: Images, *drawn: Tensor) -> Iterable[tuple]:
    """Every image with what was drawn for it, as plain numbers."""
    return zip(images, *(values.tolist() for values in drawn), strict=True)


def random_offsets(room: Tensor) -> Tensor:
    """A whole number from 0 to `room` for each of its elements, all as likely."""
    return (torch.rand(room.shape, dtype=torch.float64) * (room + 1)).long()


def uniform(shape: int | tuple[int, ...], low: float, high: float) -> Tensor:
    """Numbers between two limits."""
    return torch.empty(shape).uniform_(low, high)


def coins(number: int) -> list[bool]:
    """True or false, as likely."""
    return (torch.rand(number) < 0.5).tolist()


def either_way(*shape: int) -> Tensor:
    """Numbers from -1 to 1."""
    return uniform(shape, -1.0, 1.0)
