"""Blood smears drawn by seed, with boxes of red cells, white cells and platelets: a source without a download.

As under a microscope every cell takes light away, so that cells that overlap are darker where they do. Outlines are
circles with a few waves on them; a box is that of its cell's outline.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from graft.config.types import Count, Seed
from graft.data.boxes import Boxes
from graft.data.domain import Domain
from graft.data.samples import LabelKind, LazyTensor, Raw, Samples, seed_of, sha256

CellName = Literal["Platelets", "RBC", "WBC"]
NAMES: tuple[CellName, ...] = ("Platelets", "RBC", "WBC")

# Ranges over a training split of real smears (BCCD): per picture, and outer radii over the picture's height.
NUMBERS = {"RBC": (6, 17), "WBC": (1, 1), "Platelets": (0, 3)}
RADII = {"RBC": (0.085, 0.13), "WBC": (0.13, 0.24), "Platelets": (0.03, 0.05)}
APART = {"RBC": 1.1, "WBC": 1.6, "Platelets": 1.3}  # of a cell's centre from those before it, in mean radii
TRIES = 30  # places that are tried for a cell before it is left out
STRETCH = {"RBC": 0.22, "WBC": 0.12, "Platelets": 0.15}  # log of the longer axis over the mean, at most
WAVES = {"RBC": 0.03, "WBC": 0.04, "Platelets": 0.08}  # height of an outline's waves over its radius, at most
SOFTNESS = {"RBC": 1.0, "WBC": 1.0, "Platelets": 3.0}  # of an edge
ANGLES = 96  # of an outline, between which its box is found
LIGHT = (206, 209, 207)  # of the empty slide
# Share of each colour's light that goes through the densest part
THROUGH = {"RBC": (0.88, 0.70, 0.70), "WBC": (0.93, 0.87, 0.98), "Platelets": (0.72, 0.73, 0.93)}
NUCLEUS = (0.45, 0.38, 0.87)
LOBES = (1, 5)
NOISE = 2.0  # standard deviation, in levels of 255


@dataclass(frozen=True)
class Outline:
    """A closed curve around `centre` (x, y), in heights of the picture."""

    centre: tuple[float, float]
    radius: float
    stretch: float  # log of the longer axis over the radius
    turn: float  # radians
    waves: np.ndarray  # (3, 2) heights of two, three and four waves as cosines and sines

    def radii(self, angles: np.ndarray) -> np.ndarray:
        """How far it is from its centre in directions `angles`, in heights of the picture."""
        own = angles - self.turn
        across = np.hypot(np.cos(own) * math.exp(-self.stretch), np.sin(own) * math.exp(self.stretch))
        height = np.ones_like(own)
        for number, (cosine, sine) in enumerate(self.waves.tolist(), start=2):
            height += cosine * np.cos(number * own) + sine * np.sin(number * own)
        return self.radius / across * height

    @functools.cached_property
    def box(self) -> np.ndarray:
        """x0, y0, x1, y1 in heights of the picture."""
        angles = np.arange(ANGLES) * (2 * math.pi / ANGLES)
        radii = self.radii(angles)
        points = np.stack([self.centre[0] + radii * np.cos(angles), self.centre[1] + radii * np.sin(angles)])
        return np.concatenate([points.min(1), points.max(1)])


@dataclass(frozen=True)
class Cell:
    """A cell of a picture; `lobes` are those of a white cell's nucleus."""

    name: CellName
    outline: Outline
    density: float  # of what it takes of the light
    pallor: float  # of a red cell's middle
    lobes: Sequence[Outline] = field(default_factory=tuple)


class RenderedCells(Domain):
    """Drawn smears; a split is drawn at first use. Its pictures depend on the seed, its name and their number alone."""

    noun = "images"
    title = "rendered_cells"
    label_kinds = ("boxes",)

    def __init__(
        self,
        samples: Count = 400,
        height: Count = 240,
        width: Count = 320,
        seed: Seed = 0,
        classes: Sequence[CellName] | None = None,
        label_kind: LabelKind = "boxes",
    ) -> None:
        """`samples` for training, an eighth of it for validation and test each; `classes` are those that have boxes."""
        super().__init__(label_kind=label_kind)
        self.samples = samples
        self.height, self.width = height, width
        self.seed = seed
        self.classes = NAMES if classes is None else tuple(classes)

    def read(self) -> Raw:
        """The three splits with their boxes; nothing is drawn yet, and the split seed has nothing to decide."""
        few = max(self.samples // 8, 10)
        counts = {"train": self.samples, "val": few, "test": few}
        settings = repr((self.samples, self.height, self.width, self.seed, np.__version__)).encode()
        splits = {name: self._samples(name, number) for name, number in counts.items()}
        return Raw(splits, self.classes, fingerprint=sha256([settings, Path(__file__).read_bytes()]))

    def encode(self, splits: Mapping[str, Samples]) -> tuple[dict[str, Samples], dict[str, Any]]:
        """Pictures as they are."""
        return dict(splits), {"channels": 3}

    def _samples(self, split: str, number: int) -> Samples:
        shape = self.width / self.height
        smears = [smear(shape, random_of("cells", self.seed, split, index)) for index in range(number)]
        pictures = functools.partial(drawn, smears, (self.height, self.width), (self.seed, split))
        boxes = [boxes_of(cells, self.classes or NAMES, self.height, self.width) for cells in smears]
        sizes = torch.tensor([[self.height, self.width]] * number)
        return Samples(
            inputs=LazyTensor(number, pictures),
            labels=Boxes([one[0] for one in boxes], [one[1] for one in boxes], sizes, sizes),
            places=[f"drawn smear {index} of {split}" for index in range(number)],
            contents=None,  # no two are the same
        )


def random_of(*parts: object) -> np.random.Generator:
    """Random numbers that depend on every part."""
    return np.random.default_rng(seed_of(*parts))


def smear(shape: float, random: np.random.Generator) -> list[Cell]:
    """The cells of a picture whose width is `shape` times its height."""
    cells: list[Cell] = []
    names: tuple[CellName, ...] = ("WBC", "RBC", "Platelets")  # who comes later finds a place between the others
    for name in names:
        for _ in range(random.integers(*NUMBERS[name], endpoint=True)):
            radius = random.uniform(*RADII[name])
            for _ in range(TRIES):
                centre = random.uniform(0.02, shape - 0.02), random.uniform(0.02, 0.98)
                if all(is_apart(name, centre, radius, one) for one in cells):
                    cells.append(cell(name, centre, radius, random))
                    break
    return cells


def is_apart(name: str, centre: tuple[float, float], radius: float, other: Cell) -> bool:
    """Whether a cell may lie there: red cells overlap, others hardly do."""
    least = APART["RBC"] if name == other.name == "RBC" else max(APART[name], APART[other.name])
    return math.dist(centre, other.outline.centre) > least * (radius + other.outline.radius) / 2


def cell(name: CellName, centre: tuple[float, float], radius: float, random: np.random.Generator) -> Cell:
    """A cell of random shape, with a nucleus of one to five lobes where it is a white one."""
    outer = outline(centre, radius, STRETCH[name], WAVES[name], random)
    lobes = []
    if name == "WBC":
        number = int(random.integers(*LOBES, endpoint=True))
        size, ring = (0.75, 0.1) if number == 1 else (0.46 - 0.03 * number, 0.42)
        first = random.uniform(0, 2 * math.pi)
        for lobe in range(number):
            angle = first + lobe * (4.6 / number + random.uniform(-0.2, 0.2))  # a horseshoe rather than a ring
            away = ring * radius * random.uniform(0.8, 1.2)
            middle = centre[0] + away * math.cos(angle), centre[1] + away * math.sin(angle)
            lobes.append(outline(middle, size * radius * random.uniform(0.85, 1.15), 0.25, 0.06, random))
    return Cell(name, outer, random.uniform(0.7, 1.1), random.uniform(0.1, 0.75), lobes)


def outline(
    centre: tuple[float, float], radius: float, stretch: float, waves: float, random: np.random.Generator
) -> Outline:
    """A curve whose radius is stretched and waved at random, up to some amounts."""
    heights = random.uniform(-waves, waves, (3, 2))
    return Outline(centre, radius, random.uniform(0, stretch), random.uniform(0, math.pi), heights)


def boxes_of(cells: Sequence[Cell], classes: Sequence[str], height: int, width: int) -> tuple[Tensor, Tensor]:
    """Boxes `(n, 4)` in pixels, cut off at the borders, and classes `(n,)` of the cells that are of some class."""
    kept = [one for one in cells if one.name in classes]
    corners = np.array([one.outline.box for one in kept]).reshape(-1, 4) * height
    boxes = torch.from_numpy(corners.clip(0, [width, height, width, height])).float()
    return boxes, torch.tensor([classes.index(one.name) for one in kept], dtype=torch.int64)


def drawn(smears: Sequence[Sequence[Cell]], size: tuple[int, int], seed: object) -> Tensor:
    """Pictures uint8 `(N, 3, H, W)`."""
    pictures = [picture(cells, size, random_of("pixels", seed, index)) for index, cells in enumerate(smears)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def picture(cells: Sequence[Cell], size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """A smear uint8 `(H, W, 3)`: light, shaded to one side, that goes through all cells."""
    height, width = size
    ys, xs = np.mgrid[:height, :width].astype(np.float32) / height
    lamp, tint = LIGHT + random.normal(0, 3, 3), 1 + random.normal(0, 0.02, 3)
    across, down = random.uniform(-0.06, 0.06, 2)
    image = (1 + across * xs + down * ys)[..., None] * lamp.astype(np.float32)
    blur = random.uniform(0.004, 0.012)  # width of an edge, in heights of the picture
    for one in cells:
        edge = SOFTNESS[one.name] * blur
        x0, y0, x1, y1 = ((one.outline.box + 4 * edge * np.array([-1, -1, 1, 1])) * height).astype(int).clip(0)
        window = slice(y0, y1 + 1), slice(x0, x1 + 1)  # behind which less than a thousandth of it is left
        image[window] *= through(one, xs[window], ys[window], edge, tint)
    image += NOISE * random.standard_normal(image.shape, np.float32)
    return image.round().clip(0, 255).astype(np.uint8)


def through(cell: Cell, xs: np.ndarray, ys: np.ndarray, edge: float, tint: np.ndarray) -> np.ndarray:
    """The share of the light `(H, W, 3)` that a cell lets through; `edge` is how wide its edge is."""
    inside, depth = cover(cell.outline, xs, ys, edge)
    if cell.name == "RBC":  # a disc that is thinner in its middle
        inside = inside * (1 - cell.pallor * np.exp(-((depth / 0.5) ** 2)))
    light = dimmed(inside * cell.density, THROUGH[cell.name], tint)
    if cell.lobes:
        nucleus = np.max([cover(lobe, xs, ys, edge)[0] for lobe in cell.lobes], axis=0)
        light = light * dimmed(nucleus * cell.density, NUCLEUS, tint)
    return light


def cover(curve: Outline, xs: np.ndarray, ys: np.ndarray, edge: float) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel is inside a curve, 0 to 1, and how far out it is, 0 in its centre and 1 on it."""
    x, y = xs - curve.centre[0], ys - curve.centre[1]
    radii, distance = curve.radii(np.arctan2(y, x)), np.hypot(x, y)
    return 1 / (1 + np.exp(((distance - radii) / (edge / 2)).clip(-50, 50))), distance / radii


def dimmed(amount: np.ndarray, share: tuple[float, float, float], tint: np.ndarray) -> np.ndarray:
    """Light `(H, W, 3)` behind an amount `(H, W)` of something of which an amount of 1 lets a share through."""
    return np.exp(amount[..., None] * np.log(np.minimum(share * tint, 1)).astype(np.float32))
