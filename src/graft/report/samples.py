"""The samples that a run was most wrong about, as they are where their files are still there."""

import base64
import csv
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graft.report.names import end_of

if TYPE_CHECKING:
    from PIL import Image

ROW = re.compile(r"(?P<file>.+), row (?P<line>\d+)(?: \((?P<path>.+)\))?", re.DOTALL)
SHOWN = 12
SIDE = 160  # pixels of a thumbnail
MAX_TEXT = 280  # characters
MAX_SOUND = 120_000  # bytes of a recording that a page can carry
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
SOUNDS = {".wav": "audio/wav", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".flac": "audio/flac"}
SMALLEST = 1e-12  # probability of which a logarithm is taken


@dataclass(frozen=True)
class Sample:
    """A sample: what it is called, its label, what was predicted, and in a `note` how wrong or how sure that is.

    `image` and `sound` are data URLs, `text` is a text or the values of a table's row; None where there is none.
    `marks` are words with -1 (against the prediction) to 1 (for it), `near` the training samples that are most alike.
    """

    name: str
    label: str
    prediction: str | None = None
    note: str = ""
    image: str | None = None
    sound: str | None = None
    text: str | None = None
    marks: Sequence[tuple[str, float]] = ()
    near: Sequence["Sample"] = ()

    @property
    def short_name(self) -> str:
        """Of its files' paths the last two parts, for which a narrow column has room."""
        found = ROW.fullmatch(self.name)
        if not found:
            return end_of(self.name, 2)
        path = f" ({end_of(found['path'], 2)})" if found["path"] else ""
        return f"{end_of(found['file'], 2)}, row {found['line']}{path}"


def worst(
    found: Mapping[str, Any], *, content: bool, contents: Mapping[str, Mapping[str, str]] | None = None
) -> list[Sample]:
    """The samples with the largest loss; `content` says whether they may be shown.

    `contents` has by row what a sample is; the others are shown where their files are still there.
    """
    losses, known = losses_of(found), contents or {}
    if losses is None:
        return []
    shown: list[dict[str, Any]] = [
        dict(known.get(str(row)) or content_of(found["sample"][row])) if content else {} for row in worst_rows(losses)
    ]
    return [
        Sample(
            found["sample"][place],
            worded(found["label"][place]),
            worded(found["prediction"][place]),
            f"loss {losses[place]:.2f}",
            **own,
        )
        for place, own in zip(worst_rows(losses), shown, strict=True)
    ]


def worst_rows(losses: np.ndarray) -> list[int]:
    """The rows with the largest losses `(m,)`, the largest first; none that has no loss."""
    return [row for row in np.argsort(-losses, kind="stable")[:SHOWN].tolist() if not np.isnan(losses[row])]


def losses_of(found: Mapping[str, Any]) -> np.ndarray | None:
    """Loss `(m,)`: -log of the true class's probability, or a number's distance; None for several labels a sample.

    NaN of a class that the network has no output for, as of an open set's unknown ones.
    """
    labels = found["label"]
    if labels and isinstance(labels[0], list):
        return None
    if found["classes"] is None:
        return np.abs(np.array(labels, dtype=float) - np.array(found["prediction"], dtype=float))
    place = {name: index for index, name in enumerate(found["classes"])}
    rows = np.array(found["probabilities"], dtype=float)
    of_label = np.array(
        [row[place[label]] if label in place else np.nan for row, label in zip(rows, labels, strict=True)]
    )
    return -np.log(np.maximum(of_label, SMALLEST))


def content_of(name: str) -> dict[str, str]:
    """`image`, `sound` or `text` of a sample by its name, as far as its file is still there and can be shown."""
    row = ROW.fullmatch(name)
    path = Path(row["path"] if row and row["path"] else row["file"] if row else name)
    try:
        if path.suffix.lower() in IMAGES and path.is_file():
            return {"image": thumbnail(path)}
        if path.suffix.lower() in SOUNDS and path.is_file() and path.stat().st_size <= MAX_SOUND:
            return {"sound": data_url(path.read_bytes(), SOUNDS[path.suffix.lower()])}
        if row and not row["path"] and path.is_file() and (text := line_of(path, int(row["line"]))):
            return {"text": text}
    except (OSError, ValueError):  # changed, or no longer what it was
        return {}
    return {}


def thumbnail(path: Path) -> str:
    """A small JPEG of an image file as a data URL."""
    from PIL import Image

    with Image.open(path) as image:
        return thumbnail_of(image)


def thumbnail_of(image: "Image.Image") -> str:
    """A small JPEG of an image as a data URL."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    return jpeg_url(small)


def jpeg_url(image: "Image.Image") -> str:
    """An image as a JPEG in a data URL."""
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return data_url(content.getvalue(), "image/jpeg")


def line_of(path: Path, number: int) -> str | None:
    """A line of a text file, from 1; of a table by its header's names. None for packed files and other formats."""
    if path.suffix.lower() not in (".csv", ".tsv", ".txt", ".jsonl"):
        return None
    with path.open(encoding="utf-8", errors="replace") as file:
        header = next(file, "")
        line = header if number == 1 else next(itertools.islice(file, number - 2, None), "")
    separator = "\t" if path.suffix.lower() == ".tsv" else ";" if header.count(";") > header.count(",") else ","
    names, values = (next(csv.reader([one], delimiter=separator), []) for one in (header, line))
    named = number > 1 and len(names) == len(values) > 1 and path.suffix.lower() in (".csv", ".tsv")
    pairs = zip(names, values, strict=False)
    text = ", ".join(f"{name.strip()}: {value.strip()}" for name, value in pairs) if named else line.strip()
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


def data_url(content: bytes, kind: str) -> str:
    """Bytes inside of a page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def worded(value: Any) -> str:
    """A label for people."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
