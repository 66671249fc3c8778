"""A split's sample as a page shows it: a picture, a text, a sound, a table's row."""

import io
import wave
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor

from graft.data.samples import DomainData, Split
from graft.data.slices import column_of, table_of
from graft.inputs.audio.transform import LazyAudio
from graft.report.samples import MAX_TEXT, data_url, thumbnail_of

RATE, SECONDS = 8_000, 2.5  # of a sound: a page holds two dozen
COLUMNS = 12  # of a row


def content_of_sample(domain: DomainData, split: Split, index: int) -> dict[str, str]:
    """`image`, `sound` or `text` of a sample."""
    if domain.modality == "image":
        return {"image": thumbnail_of(picture(cast(Any, split.inputs)[index]))}
    if domain.modality == "audio":
        return {"sound": sound(LazyAudio(cast(Any, split.inputs), RATE).load(index))}
    if domain.modality == "text":
        text = cast(Any, split.inputs)[index]
        return {"text": text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"}
    if domain.modality == "table":
        return {"text": ", ".join(f"{name}: {value}" for name, value in row_of(split, index)[:COLUMNS])}
    return {}


def picture(image: Tensor) -> Image.Image:
    """A uint8 image `(C, H, W)`, of other than three channels the first, in grey."""
    values = image.numpy()
    return Image.fromarray(values.transpose(1, 2, 0) if len(values) == 3 else values[0])


def sound(waveform: Tensor) -> str:
    """The beginning of a recording as a WAV file inside of a page."""
    samples = (waveform[: int(RATE * SECONDS)].clamp(-1, 1).numpy() * 32767).astype("<i2")
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    return data_url(content.getvalue(), "audio/wav")


def row_of(split: Split, index: int) -> list[tuple[str, str]]:
    """A table's row as names and values, numbers before categories."""
    row = table_of(split)[torch.tensor([index])]
    columns = (*row.columns.numeric, *row.columns.categorical)
    return [(column.name, cell(column_of(row, column.name)[0])) for column in columns]


def cell(value: Any) -> str:
    """A value for people."""
    return "missing" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
