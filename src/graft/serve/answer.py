"""What a model says of one input, as JSON has it and as the page shows it."""

import io
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from starlette.exceptions import HTTPException

from graft.errors import GraftError
from graft.model.explain import Explanation
from graft.model.model import Model
from graft.model.predictions import text_of
from graft.model.unusual import deciding
from graft.model.writing import Row, explanation_row, row_of
from graft.report.boxes import RIGHT, outlined
from graft.report.samples import SIDE, SOUNDS, content_of, data_url, jpeg_url, thumbnail_of
from graft.serve.posted import FILES, TABLE, Posted, check_file

NEAREST = 3
SHOWN = 10  # classes with their probabilities, or boxes, before the others are folded away
DRAWN = 700  # pixels of the longer side of an image with boxes


@dataclass(frozen=True)
class Score:
    """What says whether an input is unusual: a share `accepted` of validation samples does not exceed the threshold."""

    name: str
    value: float
    threshold: float
    accepted: float


@dataclass(frozen=True)
class Answer:
    """A `row`, as `graft predict` writes it into JSON lines, with what it takes to show it."""

    row: Row
    posted: Posted
    score: Score | None
    calibrated: bool

    @property
    def prediction(self) -> str:
        """The class, classes, number or text; of boxes how many there are of each class."""
        if self.boxes is None:
            return text_of(self.row["prediction"])
        counts = Counter(box["class"] for box in self.boxes)
        return ", ".join(f"{name}: {count}" for name, count in counts.most_common()) or "nothing"

    @property
    def boxes(self) -> Sequence[Row] | None:
        """The boxes that were found, the best first; None where the model finds none."""
        found = self.row["prediction"]
        return found if isinstance(found, list) else None

    @property
    def probabilities(self) -> Sequence[tuple[str, float]]:
        """Of all classes, the most probable first."""
        return sorted(self.row.get("probabilities", {}).items(), key=lambda pair: -pair[1])

    @property
    def shown(self) -> Mapping[str, str]:
        """`image` and `sound` as data URLs, and `text`: what was posted."""
        content = self.posted.content
        if self.boxes is not None:
            return boxes_shown(content, self.boxes)
        if not isinstance(content, Mapping):
            return shown_of(self.posted.name, content)
        return {kind: one for part in content.values() for kind, one in shown_of("", part).items()}

    @property
    def nearest(self) -> Sequence[tuple[Row, Mapping[str, str]]]:
        """The nearest training samples, each with what it is, as far as its file is still there."""
        return [(one, content_of(one["sample"])) for one in self.row.get("nearest", ())]

    @property
    def explanations(self) -> Mapping[str, Row]:
        """By part of a fusion, or under an empty name, what the prediction rests on."""
        explanation = self.row.get("explanation")
        return {} if explanation is None else explanation.get("parts") or {"": explanation}


def answer(model: Model, posted: Posted) -> Answer:
    """Predict on what was posted. HTTPException for what the model cannot take."""
    fused = bool(model.backbone.parts)
    content = posted.content if fused else {model.modalities[0]: posted.content}
    for part, one in content.items():
        if part in FILES and one is not None:
            check_file(part if fused else posted.name, one, part)
    given = record_of(model, content) if fused else posted.content
    nearest = 0 if model.neighbours is None else NEAREST
    try:
        (result,) = model.predict([given], explain=posted.explain, nearest=nearest)
    except GraftError as error:
        raise HTTPException(422, str(error)) from None
    except Exception as error:  # what a network raises may hold the input, and goes nowhere
        print(f"A prediction failed: {type(error).__name__}.", file=sys.stderr, flush=True)
        raise HTTPException(500, f"The network failed on this input ({type(error).__name__}).") from None
    explanation = result.pop("explanation", None)
    row = row_of(posted.name, result, explanation and explained(explanation))
    return Answer(row, posted, score_of(row, model.description.unusual), model.description.temperature is not None)


def record_of(model: Model, content: Mapping[str, Any]) -> Row:
    """A sample of several modalities by the columns of the run's data.

    Texts and files come last: a field of the row that is called like their column names no file on this machine.
    """
    media = model.description.reading["media"]
    return {**(content.get(TABLE) or {}), **{column: content.get(part) for part, column in media.items()}}


def score_of(row: Row, unusual: Mapping[str, Any] | None) -> Score | None:
    """The score that decides, of those in a row, by what a description says of them; None where there is none."""
    limits = unusual["thresholds"] if unusual else {}
    name = deciding(row, limits)
    return Score(name, row[name], limits[name], unusual["accepted"]) if unusual and name else None


def explained(explanation: Explanation) -> Row:
    """An explanation as JSON has it, pictures as data URLs."""
    row = explanation_row(explanation)
    if explanation.picture is not None:
        row["picture"] = data_url(explanation.picture, "image/png")
    if explanation.parts:
        row["parts"] = {part: explained(one) for part, one in explanation.parts.items()}
    return row


def shown_of(name: str, content: Any) -> Mapping[str, str]:
    """`image` or `sound` as a data URL, or `text`; nothing of a row, and of a part that is not there."""
    if isinstance(content, str):
        return {"text": content}
    if not isinstance(content, bytes):
        return {}
    kind = SOUNDS.get(Path(name).suffix.lower())
    return {"sound": data_url(content, kind)} if kind else thumbnail_shown(content)


def boxes_shown(content: bytes, boxes: Sequence[Row]) -> Mapping[str, str]:
    """An image file with boxes drawn in it; nothing of one that Pillow cannot show."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            whole = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError):
        return {}
    return {"drawn": jpeg_url(outlined(whole, DRAWN, (), boxes, [RIGHT] * len(boxes)))}


def thumbnail_shown(content: bytes) -> Mapping[str, str]:
    """A small picture of an image file; none of one that Pillow cannot show, such as one of many bands."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.draft("RGB", (SIDE, SIDE))
            return {"image": thumbnail_of(ImageOps.exif_transpose(image))}
    except (OSError, ValueError):
        return {}
