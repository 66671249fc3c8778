"""Images with boxes, whatever they are listed in: sizes of the files, boxes that are none, classes by number."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import ExifTags, Image

from graft.config.types import Count, FractionBelowOne
from graft.data.boxes import Boxes
from graft.data.domain import SplitRule
from graft.data.readers.labelled_images import LabelledImages
from graft.data.samples import LabelKind, OnBadSample, Raw, Samples
from graft.errors import GraftError, listed

TURNED = range(5, 9)  # values of EXIF's orientation under which height and width change places
WITHOUT_AREA = "without area"
Corners = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels


@dataclass
class Annotated:
    """What an annotation says of one image; `size` is `(H, W)`, None where it says none."""

    path: Path
    boxes: list[tuple[str, Corners]] = field(default_factory=list)
    size: tuple[int, int] | None = None
    left_out: Counter[str] = field(default_factory=Counter)  # reason -> boxes that are not used


class BoxImages(LabelledImages):
    """A domain of image files with boxes of classes."""

    label_kinds = ("boxes",)
    noun = "images"

    def __init__(
        self,
        classes: Sequence[str] | None = None,
        channels: Count = 3,
        pixel_range: Sequence[float] | None = None,
        val_fraction: FractionBelowOne = 0.15,
        test_fraction: FractionBelowOne = 0.15,
        on_bad_sample: OnBadSample = "error",
        label_kind: LabelKind = "boxes",
        label_separator: str = "|",
        split: SplitRule | None = None,
    ) -> None:
        """`classes` are those that are used, in their order; null are all that training images have."""
        super().__init__(
            channels,
            pixel_range,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            on_bad_sample=on_bad_sample,
            label_kind=label_kind,
            label_separator=label_separator,
            split=split,
        )
        self.classes = None if classes is None else tuple(str(name) for name in classes)

    def annotated(self) -> Mapping[str, Sequence[Annotated]]:
        """The images of every split; GraftError where an annotation cannot be read."""
        raise NotImplementedError

    def read(self) -> Raw:
        """The images of every split with their boxes; each is decoded, so that a broken one is found early."""
        splits = self.annotated()
        classes = self.classes or tuple(sorted({name for one in splits["train"] for name, _ in one.boxes}))
        if not classes:
            raise GraftError(f"{self.origin('train')}: no training image has a box. {self.advice}")
        samples = {name: samples_of(images, classes) for name, images in splits.items()}
        left_out = sum((one.left_out for images in splits.values() for one in images), Counter[str]())
        others = Counter(n for images in splits.values() for one in images for n, _ in one.boxes if n not in classes)
        notes = [f"{sum(others.values()):,} boxes of other classes are left out ({listed(sorted(others))})"] * bool(
            others
        )
        notes += [f"{count:,} boxes {reason} are left out" for reason, count in sorted(left_out.items())]
        raw = self.with_looks(Raw(samples, classes))
        return Raw(raw.splits, raw.classes, (*notes, *raw.notes), raw.fingerprint)


def samples_of(images: Sequence[Annotated], classes: Sequence[str]) -> Samples:
    """Images of a split as samples; boxes beyond an image's border are cut off, those without area left out."""
    number = {name: index for index, name in enumerate(classes)}
    boxes, labels, sizes, problems = [], [], [], {}
    for index, one in enumerate(images):
        size = size_of(one.path)
        if size is not None and one.size is not None and size != one.size:
            problems[index] = (
                f"its annotation is of an image of {one.size[1]} x {one.size[0]} pixels, and it has "
                f"{size[1]} x {size[0]}"
            )
        height, width = size or one.size or (1, 1)
        corners = []
        for name, box in one.boxes:
            if name not in number:
                continue
            x0, x1 = (min(max(x, 0.0), width) for x in box[::2])
            y0, y1 = (min(max(y, 0.0), height) for y in box[1::2])
            if x0 < x1 and y0 < y1:
                corners.append((number[name], (x0, y0, x1, y1)))
            else:
                one.left_out[WITHOUT_AREA] += 1
        boxes.append(torch.tensor([box for _, box in corners], dtype=torch.float32).view(-1, 4))
        labels.append(torch.tensor([label for label, _ in corners], dtype=torch.int64))
        sizes.append((height, width))
    whole = torch.tensor(sizes).view(-1, 2)
    return Samples(
        inputs=[one.path for one in images],
        labels=Boxes(boxes, labels, whole, whole),
        places=[str(one.path) for one in images],
        contents=None,
        problems=problems,
    )


def size_of(file: Path | bytes) -> tuple[int, int] | None:
    """Height and width of an image file as it is shown, by its first bytes; None where it cannot be opened."""
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            width, height = image.size
            return (width, height) if image.getexif().get(ExifTags.Base.Orientation) in TURNED else (height, width)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
