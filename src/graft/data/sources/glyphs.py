"""Digits 0-9 rendered from the fonts that matplotlib carries, bent towards handwriting: a source without a download.

Every glyph is kept as a signed distance field (positive inside the ink), because there the weight of the stroke is
a threshold, and a blend of two fonts' fields is a shape between them.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont, __version__
from torch import Tensor

from graft.config.types import Count, Seed
from graft.data.domain import Domain
from graft.data.samples import LazyTensor, Raw, Samples, generator, sha256

FONTS = ("DejaVuSans*", "DejaVuSerif*", "STIXGeneral*", "cmr10", "cmb10", "cmss10", "cmtt10")
CANVAS, HEIGHT = 48, 30  # pixels: side of a distance field, and how tall the digit in it is
CHUNK = 500  # images rendered at once, to bound memory

# Ranges of variation, chosen by what a small network that saw only glyphs reads on the digits' validation split.
ROTATION = 12  # degrees, either way
SHEAR = 0.3  # either way
ASPECT = 0.15  # log of the width's factor, either way
BEND, KNOTS = 0.22, 5  # elastic displacement of a grid of knots, in half canvases
STROKE = (0.0625, 0.125)  # half the stroke's width, in heights of the digit
WIDTH = (0.75, 1.1)  # factor after the digit was made to fill the height
SHIFT = 1 / 32  # sideways, in widths of the image


class Glyphs(Domain):
    """Rendered digits; a split is rendered at first use. All splits share the fonts and differ in everything else."""

    noun = "images"
    title = "glyphs"

    def __init__(self, samples: Count = 8000, size: Count = 32, block: Count = 4, seed: Seed = 0) -> None:
        """`samples` for training, an eighth of it for validation and test each; images are `size / block` pixels.

        `block=4` counts the ink in blocks of 4x4 pixels, the way scikit-learn's digits were scanned.
        """
        super().__init__()
        self.samples = samples
        self.size = size
        self.block = block
        self.seed = seed

    def read(self) -> Raw:
        """The three splits; nothing is rendered yet, and the split seed has nothing to decide."""
        few = max(self.samples // 8, 10)
        counts = {"train": self.samples, "val": few, "test": few}
        settings = repr((self.samples, self.size, self.block, self.seed, __version__)).encode()
        code = [Path(__file__).read_bytes(), *(path.read_bytes() for path in font_files())]
        splits = {name: self._samples(name, number) for name, number in counts.items()}
        return Raw(splits, tuple("0123456789"), fingerprint=sha256([settings, *code]))

    def encode(self, splits: Mapping[str, Samples]) -> tuple[dict[str, Samples], dict[str, Any]]:
        """Grey images as they are."""
        return dict(splits), {"channels": 1}

    def _samples(self, name: str, number: int) -> Samples:
        labels = torch.arange(number) % 10
        make = functools.partial(render, labels, self.size, self.block, (self.seed, name))
        return Samples(
            inputs=LazyTensor(number, make),
            labels=[str(label) for label in labels.tolist()],
            places=[f"glyph {index} of {name}" for index in range(number)],
            contents=None,  # no two are the same
        )


def render(labels: Tensor, size: int, block: int, seed: object) -> Tensor:
    """Images uint8 `(N, 1, size / block, size / block)` of the digits `labels` `(N,)`, white on black."""
    random = generator("glyphs", seed)
    fields = distance_fields()
    return torch.cat([_render_chunk(fields, chunk, size, block, random) for chunk in labels.split(CHUNK)])


def _render_chunk(fields: Tensor, labels: Tensor, size: int, block: int, random: torch.Generator) -> Tensor:
    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    def either_way(*shape: int) -> Tensor:
        return 2 * uniform(*shape) - 1

    number = len(labels)
    fonts = torch.randint(fields.shape[1], (2, number), generator=random)
    blend = uniform(number, 1, 1)
    field = blend * fields[labels, fonts[0]] + (1 - blend) * fields[labels, fonts[1]]
    stroke = field.amax((1, 2))  # half the width of the thickest stroke

    angle = either_way(number) * ROTATION * torch.pi / 180
    widths = (either_way(number) * ASPECT).exp()
    slant = either_way(number) * SHEAR
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(number)
    rows = [cos * widths, slant - sin, zero], [sin * widths, cos, zero]
    affine = torch.stack([torch.stack(row, 1) for row in rows], 1)
    bend = F.interpolate(either_way(number, 2, KNOTS, KNOTS) * BEND, CANVAS, mode="bicubic", align_corners=True)
    grid = F.affine_grid(affine, [number, 1, CANVAS, CANVAS], align_corners=False) + bend.permute(0, 2, 3, 1)
    field = _sample(field, grid)

    thin, thick = (share * HEIGHT for share in STROKE)
    wanted = thin + (thick - thin) * uniform(number)
    grow = torch.maximum(wanted - 0.75 * stroke, -0.8 * stroke)  # never thin it until it falls apart
    field = field + grow[:, None, None]

    left, right = _extent((field > 0).any(1))
    top, bottom = _extent((field > 0).any(2))
    ratio = (right - left) / (bottom - top)  # width to height
    low, high = WIDTH
    filled = (ratio * (low + (high - low) * uniform(number))).clamp(0.1, 0.8)  # share of the image's width
    scale_x, scale_y = (right - left) / CANVAS / filled, (bottom - top) / CANVAS
    centre_x = (left + right) / CANVAS - 1 + 2 * SHIFT * either_way(number) * scale_x
    centre_y = (top + bottom) / CANVAS - 1
    crop = torch.stack([torch.stack([scale_x, zero, centre_x], 1), torch.stack([zero, scale_y, centre_y], 1)], 1)
    field = _sample(field, F.affine_grid(crop, [number, 1, size, size], align_corners=False))

    ink = F.avg_pool2d((field > 0).float().unsqueeze(1), block)
    return (255 * ink).round().to(torch.uint8)


def _sample(field: Tensor, grid: Tensor) -> Tensor:
    """Fields `(B, H, W)` read at the points of a grid `(B, H2, W2, 2)`."""
    return F.grid_sample(field.unsqueeze(1), grid, align_corners=False, padding_mode="border").squeeze(1)


def _extent(inked: Tensor) -> tuple[Tensor, Tensor]:
    """First and last+1 position with ink, `(B,)` each, of rows or columns `(B, CANVAS)`."""
    positions = torch.arange(CANVAS)
    first = torch.where(inked, positions, CANVAS - 1).amin(1)
    last = torch.where(inked, positions, 0).amax(1)
    return first.float(), last.float() + 1


@functools.cache
def distance_fields() -> Tensor:
    """Signed distances to the outline in pixels, `(10, fonts, CANVAS, CANVAS)`; every 7 also comes with a crossbar."""
    shapes = [[_draw(path, digit) for path in font_files()] for digit in "0123456789"]
    crossed = [_cross(shape) for shape in shapes[7]]
    shapes = [row + (crossed if digit == 7 else row) for digit, row in enumerate(shapes)]
    return torch.stack([torch.stack([_signed_distance(shape) for shape in row]) for row in shapes])


def font_files() -> list[Path]:
    """The fonts of matplotlib that have ordinary digits."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    files = {path for pattern in FONTS for path in folder.glob(f"{pattern}.ttf")}
    return sorted(path for path in files if "Display" not in path.stem)


def _draw(font: Path, digit: str) -> Image.Image:
    """One digit, HEIGHT pixels tall, in the middle of a canvas."""
    large = Image.new("L", (128, 128))
    ImageDraw.Draw(large).text((64, 64), digit, fill=255, font=ImageFont.truetype(str(font), 64), anchor="mm")
    shape = large.crop(large.getbbox())
    shape = shape.resize((max(1, round(shape.width * HEIGHT / shape.height)), HEIGHT), Image.Resampling.BICUBIC)
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(shape, ((CANVAS - shape.width) // 2, (CANVAS - HEIGHT) // 2))
    return canvas


def _cross(shape: Image.Image) -> Image.Image:
    """A 7 with the crossbar that many hands write."""
    shape = shape.copy()
    middle = CANVAS // 2
    ImageDraw.Draw(shape).line((middle - 9, middle + 1, middle + 10, middle), fill=255, width=3)
    return shape


def _signed_distance(shape: Image.Image) -> Tensor:
    from scipy.ndimage import distance_transform_edt

    ink = np.asarray(shape) > 127
    return torch.from_numpy(distance_transform_edt(ink) - distance_transform_edt(~ink)).float()
