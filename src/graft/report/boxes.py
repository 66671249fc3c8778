"""Predicted boxes on a run's page: how many of each class are found, and the images with the most mistakes, drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graft.report.export import Table
from graft.report.page import Section
from graft.report.samples import IMAGES, SHOWN, Sample, jpeg_url

if TYPE_CHECKING:
    from PIL import Image

OVERLAP = 0.5  # IoU from which a predicted box is one of the labels
SIDE = 360  # pixels of a drawn image
LABELLED, RIGHT, WRONG = "#ffffff", "#2e8b57", "#d1495b"  # colours of lines
Box = Mapping[str, Any]  # class, box, and score of predictions


@dataclass(frozen=True)
class Matched:
    """Of an image's predictions `(p,)` whether each is right, and of its labels `(n,)` whether each is found."""

    right: np.ndarray
    found: np.ndarray

    @property
    def mistakes(self) -> int:
        """Predictions that are wrong and labels that are missed."""
        return int((~self.right).sum() + (~self.found).sum())


def are_in(found: Mapping[str, Any]) -> bool:
    """Whether test predictions, as `model.predictions.read` gives them, are boxes."""
    kinds = [one for row in (*found["label"], *found["prediction"]) if isinstance(row, list) for one in row]
    return bool(kinds) and isinstance(kinds[0], Mapping)


def section(found: Mapping[str, Any], *, content: bool) -> Section:
    """How many boxes are found, and the worst images, drawn where `content` says that they may be shown."""
    matched = [match(*pair) for pair in zip(found["label"], found["prediction"], strict=True)]
    order = sorted(range(len(matched)), key=lambda row: -matched[row].mistakes)
    worst = [row for row in order if matched[row].mistakes][:SHOWN]
    samples = [sample_of(found, row, matched[row], content) for row in worst]
    colours = "Labels are white, right predictions green, wrong ones red." if content else ""
    lines = [f"The images with the most mistakes of {len(matched):,}. {colours}".strip()] if samples else []
    return Section("Boxes", [counted(found, matched)], samples=samples, lines=lines)


def match(labels: Sequence[Box], predictions: Sequence[Box]) -> Matched:
    """Each prediction, the best first, takes the label of its class that it overlaps most, if that is still free."""
    right, found = np.zeros(len(predictions), dtype=bool), np.zeros(len(labels), dtype=bool)
    if not labels or not predictions:
        return Matched(right, found)
    overlaps = iou(corners(predictions), corners(labels))
    same = np.array([[one["class"] == other["class"] for other in labels] for one in predictions])
    for row in np.argsort([-one["score"] for one in predictions], kind="stable"):
        free = np.where(same[row] & ~found, overlaps[row], 0.0)
        best = int(free.argmax())
        if free[best] >= OVERLAP:
            right[row] = found[best] = True
    return Matched(right, found)


def corners(boxes: Sequence[Box]) -> np.ndarray:
    """Their corners `(n, 4)`."""
    return np.array([one["box"] for one in boxes], dtype=float)


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union `(n, m)` of boxes `(n, 4)` and `(m, 4)`."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clip(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (first, second)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


def counted(found: Mapping[str, Any], matched: Sequence[Matched]) -> Table:
    """Of each class how many boxes there are, how many are found, and how many predictions are wrong."""
    counts: dict[str, list[int]] = {}
    for labels, predictions, one in zip(found["label"], found["prediction"], matched, strict=True):
        for label, is_found in zip(labels, one.found.tolist(), strict=True):
            row = counts.setdefault(label["class"], [0, 0, 0])
            row[0] += 1
            row[1] += is_found
        for prediction, is_right in zip(predictions, one.right.tolist(), strict=True):
            counts.setdefault(prediction["class"], [0, 0, 0])[2] += not is_right
    rows = []
    for name, (labels, hits, wrong) in sorted(counts.items()):
        recall = f"{hits / labels:.3f}" if labels else ""
        precision = f"{hits / (hits + wrong):.3f}" if hits + wrong else ""
        rows.append([name, f"{labels:,}", f"{hits:,}", f"{wrong:,}", recall, precision])
    header = ["class", "boxes", "found", "wrong predictions", "recall", "precision"]
    caption = (
        f"Test images of the target, predictions that score at least task.score; found is what a prediction of its "
        f"class overlaps by {OVERLAP:g} (IoU)."
    )
    return Table("boxes", "Boxes found", caption, header, rows, numbers=1)


def sample_of(found: Mapping[str, Any], row: int, matched: Matched, content: bool) -> Sample:
    """An image with what is wrong in it."""
    labels, predictions, name = found["label"][row], found["prediction"][row], found["sample"][row]
    missed, wrong = int((~matched.found).sum()), int((~matched.right).sum())
    image = drawn(Path(name), labels, predictions, matched) if content else None
    return Sample(name, f"{len(labels)} boxes", None, f"{missed} missed, {wrong} wrong", image=image)


def drawn(path: Path, labels: Sequence[Box], predictions: Sequence[Box], matched: Matched) -> str | None:
    """An image file with its boxes as a data URL; None where it is no longer there."""
    from PIL import Image, ImageOps

    if path.suffix.lower() not in IMAGES or not path.is_file():
        return None
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError):  # changed, or no longer what it was
        return None
    colours = [RIGHT if right else WRONG for right in matched.right.tolist()]
    return jpeg_url(outlined(image, SIDE, labels, predictions, colours))


def outlined(
    image: "Image.Image", side: int, labels: Sequence[Box], predictions: Sequence[Box], colours: Sequence[str]
) -> "Image.Image":
    """The image, its longer side `side` pixels, with labels in white and predictions in their colours."""
    scale = side / max(image.size)
    resized = image.resize([max(1, round(length * scale)) for length in image.size])
    for label in labels:
        outline(resized, label, scale, LABELLED)
    for prediction, colour in zip(predictions, colours, strict=True):
        outline(resized, prediction, scale, colour, f"{prediction['class']} {prediction['score']:.2f}")
    return resized


def outline(image: "Image.Image", box: Box, scale: float, colour: str, text: str = "") -> None:
    """Draw a box, given in pixels of the whole image."""
    from PIL import ImageDraw, ImageFont

    draw = ImageDraw.Draw(image)
    x0, y0, x1, y1 = (value * scale for value in box["box"])
    draw.rectangle((x0, y0, x1, y1), outline=colour, width=2 if text else 3)
    if text:
        font = ImageFont.load_default(max(10, max(image.size) // 50))
        draw.rectangle(draw.textbbox((x0 + 2, y0 + 1), text, font), fill=colour)
        draw.text((x0 + 2, y0 + 1), text, "white", font)
