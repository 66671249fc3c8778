"""Samples of several modalities out of a table's columns: texts, paths of images and recordings, and its values."""

import io
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from graft.data.readers.images import ImageFiles
from graft.data.readers.recordings import SoundFiles
from graft.data.readers.texts import Texts
from graft.files import user_path
from graft.inputs.fusion import MultimodalRows

FILES = ("image", "audio")  # modalities whose columns hold paths
SILENCE_RATE, SILENCE = 16_000, 1_600  # samples a second, and how many stand for a recording that is not there


def rows_with(table: Any, texts: Any, paths: Mapping[str, Sequence[Any]], channels: int) -> MultimodalRows:
    """Samples of a table or none, texts or none, and files (or bytes) by modality; None is a missing one.

    What is missing has a placeholder, so that a batch has one shape: no text, a grey image, silence.
    """
    fields: dict[str, Any] = {}
    present: dict[str, Any] = {}
    if texts is not None:
        fields["text"] = Texts(["" if one is None else one for one in texts])
        present["text"] = [one is not None and bool(one.strip()) for one in texts]
    if "image" in paths:
        grey = grey_image(channels)
        fields["image"] = ImageFiles([grey if one is None else one for one in paths["image"]], channels)
        present["image"] = [one is not None for one in paths["image"]]
    if "audio" in paths:
        quiet = silence()
        fields["audio"] = SoundFiles([quiet if one is None else one for one in paths["audio"]])
        present["audio"] = [one is not None for one in paths["audio"]]
    if table is not None:
        fields["table"] = table
        present["table"] = [True] * len(table)
    return MultimodalRows(fields, {name: torch.tensor(there, dtype=torch.bool) for name, there in present.items()})


def grey_image(channels: int) -> bytes:
    """A small grey image as a file's bytes."""
    file = io.BytesIO()
    Image.new("L" if channels == 1 else "RGB", (8, 8), 128 if channels == 1 else (128, 128, 128)).save(file, "PNG")
    return file.getvalue()


def silence() -> bytes:
    """A short recording without sound as a file's bytes."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SILENCE_RATE)
        sound.writeframes(np.zeros(SILENCE, dtype="<i2").tobytes())
    return file.getvalue()


def placed(folder: Path, path: str) -> Path:
    """The file of a path, below a folder where it does not say where it is."""
    return folder / user_path(path)
