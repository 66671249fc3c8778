"""A split's sample as a page shows it: a picture, a text, a sound, a table's row."""

import io
import wave
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from graft.data.samples import DomainData, Split, rows_of
from graft.data.slices import column_of
from graft.inputs.audio.transform import LazyAudio
from graft.inputs.fusion import MultimodalRows
from graft.inputs.table import TableRows
from graft.report.samples import MAX_TEXT, data_url, thumbnail_of

RATE, SECONDS = 8_000, 2.5  # of a sound: a page holds two dozen
COLUMNS = 12  # of a row
ROUNDING = 1e-6  # of standardised numbers in single precision, as a share of a column's numbers


def content_of_sample(domain: DomainData, split: Split, index: int) -> dict[str, str]:
    """`image`, `sound` or `text` of a sample; of several modalities those that it has, its fields behind its text."""
    if domain.modality == "multimodal":
        rows: MultimodalRows = rows_of(split)
        there = [name for name, present in rows.present.items() if bool(present[index])]
        return joined([content_of_inputs(name, rows.fields[name], index) for name in there])
    return content_of_inputs(domain.modality, split.inputs, index)


def content_of_inputs(modality: str, inputs: Any, index: int) -> dict[str, str]:
    """`image`, `sound` or `text` of a sample of one modality."""
    if modality == "image":
        return {"image": thumbnail_of(picture(inputs[index]))}
    if modality == "audio":
        return {"sound": sound(LazyAudio(inputs, RATE).load(index))}
    if modality == "text":
        text = inputs[index]
        return {"text": text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"}
    if modality == "table":
        return {"text": ", ".join(f"{name}: {value}" for name, value in fields_of(inputs, index)[:COLUMNS])}
    return {}


def joined(contents: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """All contents of a sample as one; texts follow each other."""
    found: dict[str, str] = {}
    for content in contents:
        for kind, one in content.items():
            found[kind] = f"{found[kind]} | {one}" if kind in found else one
    return found


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
    """A table's row as names and values, numbers before categories; of several modalities the sample's table fields."""
    rows = rows_of(split)
    return fields_of(rows.fields["table"] if isinstance(rows, MultimodalRows) else rows, index)


def fields_of(table: Any, index: int) -> list[tuple[str, str]]:
    """A row of a table as names and values, numbers before categories."""
    row: TableRows = rows_of(Split(table, None, ""))[torch.tensor([index])]
    names = [(one.name, abs(one.mean) + one.std) for one in row.columns.numeric]
    names += [(one.name, 0.0) for one in row.columns.categorical]
    return [(name, cell(column_of(row, name)[0], scale)) for name, scale in names]


def cell(value: Any, scale: float = 0.0) -> str:
    """A value for people; of a column whose numbers are that large, what is left of a 0 by rounding is one."""
    if isinstance(value, float):
        return f"{0.0 if abs(value) < ROUNDING * scale else value:.4g}"
    return "missing" if value is None else str(value)
