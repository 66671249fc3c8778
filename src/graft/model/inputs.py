"""From what a user has (paths, pictures, arrays, texts, tables, sound) to samples as a run's own data gave them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from graft.data.readers.images import ImageFiles, decode, image_tensor
from graft.data.readers.numerals import plainly, read_numerals
from graft.data.readers.recordings import SoundFiles, resampled
from graft.data.readers.recordings import decode as decode_sound
from graft.data.readers.table import Table, read_table, texts, without_missing
from graft.data.readers.table_source import encode, wrong_values
from graft.data.readers.texts import Texts
from graft.errors import GraftError, listed
from graft.files import user_path
from graft.inputs.columns import Columns
from graft.inputs.sequence import Sequences, scaled

FILE = "data.target.file"  # the key that messages of the readers name


def samples_of(modality: str, inputs: Any, reading: Mapping[str, Any], **options: Any) -> Any:
    """Samples by index, as the modality's transform takes them. Raises GraftError for what cannot be read."""
    if modality not in READERS:
        raise GraftError(f"There is no way to predict on {modality} inputs.")
    return READERS[modality](inputs, reading, **options)


def is_path(one: Any) -> bool:
    """Whether an input names a file."""
    return isinstance(one, str | Path)


def as_list(inputs: Any, single: Callable[[Any], bool]) -> list[Any]:
    """Several inputs, also where one alone is given."""
    return [inputs] if single(inputs) else list(inputs)


def files_of(paths: Sequence[str | Path]) -> list[Path]:
    """The files that paths name. Raises GraftError for those that are not there."""
    files = [user_path(one) for one in paths]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise GraftError(f"There is no file {listed(missing)}.")
    return files


# Images


class Pictures(Sequence):
    """Images of any kind, as uint8 `(C, H, W)` when asked for."""

    def __init__(self, pictures: Sequence[Any], channels: int, pixel_range: tuple[float, float] | None) -> None:
        self.pictures = pictures
        self.channels = channels
        self.pixel_range = pixel_range

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]  # nobody slices it
        picture = self.pictures[index]
        if is_path(picture):
            return decode(user_path(picture), self.channels, pixel_range=self.pixel_range)
        try:
            if isinstance(picture, Image.Image):
                return image_tensor(picture, self.channels, self.pixel_range)
            values = channels_last(picture)
            limit = None if values.dtype.kind in "fb" else float(np.iinfo(values.dtype).max)
            return image_tensor(values, self.channels, self.pixel_range, limit)
        except (TypeError, ValueError, RuntimeError) as error:
            raise GraftError(f"inputs[{index}] cannot be read as an image: {error}") from error


def channels_last(picture: Any) -> np.ndarray:
    """An array `(H, W)` or `(H, W, C)`, or a tensor `(C, H, W)` as torch has them, as an array with channels last."""
    if isinstance(picture, Tensor):
        values = picture.cpu().numpy()
        return values.transpose(1, 2, 0) if values.ndim == 3 else values
    values = np.asarray(picture)
    if values.ndim not in (2, 3) or values.dtype.kind not in "uifb":
        raise ValueError(f"numbers of the shape (H, W) or (H, W, C) are, and this is {values.dtype} {values.shape}")
    return values


def pictures(inputs: Any, reading: Mapping[str, Any]) -> Sequence:
    """Images from paths, PIL images, arrays `(H, W, C)`, or tensors `(C, H, W)`."""
    array = isinstance(inputs, np.ndarray | Tensor)
    single = is_path(inputs) or isinstance(inputs, Image.Image) or (array and inputs.ndim < 4)
    found = as_list(inputs, lambda _: single)
    stated = reading.get("pixel_range")
    pixel_range = None if stated is None else (float(stated[0]), float(stated[1]))
    if all(map(is_path, found)):
        return ImageFiles(files_of(found), reading["channels"], pixel_range)
    return Pictures(found, reading["channels"], pixel_range)


# Sound


class Sounds(Sequence):
    """Recordings of any kind, float32 `(L,)` at a sample rate when asked for."""

    def __init__(self, sounds: Sequence[Any], sample_rate: int | None) -> None:
        self.sounds = sounds
        self.sample_rate = sample_rate

    def __len__(self) -> int:
        return len(self.sounds)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]  # nobody slices it
        sound = self.sounds[index]
        if is_path(sound):
            return torch.from_numpy(decode_sound(user_path(sound))[0])
        return torch.from_numpy(self.values(index)[0])

    def values(self, index: int) -> tuple[np.ndarray, int]:
        """Sound `(L,)`, channels averaged, and its samples a second."""
        sound, rate = self.sounds[index], self.sample_rate
        if isinstance(sound, tuple):
            sound, rate = sound
        if rate is None:
            raise GraftError(
                f"inputs[{index}]: how many samples a second are there? Give pairs (waveform, sample_rate), or "
                "predict(..., sample_rate=16000)."
            )
        values = np.asarray(sound, dtype=np.float32)
        if values.ndim == 2:  # (channels, L) as torchaudio has them, or (L, channels) as soundfile has
            values = values.mean(0 if values.shape[0] < values.shape[1] else 1)
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise GraftError(f"inputs[{index}]: a waveform is finite numbers (L,), and this is {values.shape}.")
        return values, rate

    def read(self, index: int, sample_rate: int) -> Tensor:
        """A recording float32 `(L,)` at a sample rate."""
        sound = self.sounds[index]
        found = decode_sound(user_path(sound)) if is_path(sound) else self.values(index)
        return torch.from_numpy(resampled(*found, sample_rate))


def sounds(inputs: Any, reading: Mapping[str, Any], sample_rate: int | None = None) -> Sequence:
    """Recordings from paths, pairs of a waveform and its sample rate, or waveforms of one `sample_rate`."""
    waveform = isinstance(inputs, np.ndarray | Tensor) and inputs.ndim == 1
    pair = isinstance(inputs, tuple) and len(inputs) == 2 and isinstance(inputs[1], int)
    found = as_list(inputs, lambda one: is_path(one) or waveform or pair)
    if all(map(is_path, found)):
        return SoundFiles(files_of(found))
    return Sounds(found, sample_rate)


# Texts


def sentences(inputs: Any, reading: Mapping[str, Any]) -> Texts:
    """Texts; one alone is a text, not a file."""
    found = as_list(inputs, lambda one: isinstance(one, str))
    for index, text in enumerate(found):
        if not isinstance(text, str) or not text.strip():
            raise GraftError(f"inputs[{index}]: a text is wanted, and this is {text!r:.60}.")
    return Texts([text.strip() for text in found])


# Tables


def table_rows(inputs: Any, reading: Mapping[str, Any], columns: Columns) -> Any:
    """Rows in a network's columns, from a file, a data frame, columns by name, or a list of records.

    Raises GraftError for columns that are missing and values that are no numbers where the network wants some; other
    columns are not looked at.
    """
    table, problems = checked_table(table_of(inputs, reading), reading, columns)
    if problems:
        line, problem = problems[0]
        raise GraftError(f"{table.file}, row {line}: {problem}.")
    return encode(table, columns)


def checked_table(table: Table, reading: Mapping[str, Any], columns: Columns) -> tuple[Table, list[tuple[int, str]]]:
    """The rows of a table that can be used, with plain numbers; by line what is wrong with the others.

    Raises GraftError for columns that are missing.
    """
    if missing := [column.name for column in columns.all if column.name not in table.columns]:
        raise GraftError(f"{table.file}: it has no column {listed(missing)}. Columns: {', '.join(table.columns)}.")
    if decimal := reading.get("decimal"):
        table = with_plain_numbers(table, columns, decimal)
    wrong = wrong_values(table, columns)
    problems = [*sorted(table.bad.items()), *((int(table.lines[index]), problem) for index, problem in wrong.items())]
    kept = np.array([index for index in range(len(table)) if index not in wrong], dtype=np.int64)
    return replace(table.rows(kept) if wrong else table, bad={}), problems


def with_plain_numbers(table: Table, columns: Columns, decimal: str) -> Table:
    """The table with numbers as Python reads them, in the network's columns."""
    numeric = [column.name for column in columns.numeric]
    others = [name for name in table.columns if name not in {column.name for column in columns.categorical}]
    table, _ = read_numerals(table, decimal, skip=others)
    plain = {
        name: texts([plainly(value, decimal) for value in table.columns[name]])
        for name in numeric
        if table.columns[name].dtype == object
    }
    return replace(table, columns=table.columns | plain)


def table_of(inputs: Any, reading: Mapping[str, Any]) -> Table:
    """Rows as a table; numbers stay numbers, and everything else is text."""
    if isinstance(inputs, Table):
        return inputs
    if is_path(inputs):
        options = {name: reading.get(name) for name in ("delimiter", "header", "encoding", "missing")}
        options = {"delimiter": None, "header": True, "encoding": "utf-8", "missing": ()} | {
            name: value for name, value in options.items() if value is not None
        }
        return read_table(user_path(inputs), FILE, **options)
    if isinstance(inputs, Sequence):
        names = list(dict.fromkeys(name for record in inputs for name in record))
        inputs = {name: [record.get(name) for record in inputs] for name in names}
    elif isinstance(inputs, Mapping) and not any(is_column(values) for values in inputs.values()):
        inputs = {name: [value] for name, value in inputs.items()}  # one record
    columns = {str(name): column_of(inputs[name]) for name in inputs}
    missing = {word.strip() for word in reading.get("missing", ())} | {""}
    columns = {name: without_missing(values, missing) for name, values in columns.items()}
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise GraftError(f"The columns of the inputs have different lengths: {sorted(lengths)}.")
    return Table("inputs", columns, np.arange(1, lengths.pop() + 1))


def is_column(values: Any) -> bool:
    """Whether a mapping's value is a column of values, not one value."""
    return not isinstance(values, str | bytes) and hasattr(values, "__len__")


def column_of(values: Any) -> np.ndarray:
    """Values as an array of float64, NaN where one is missing, or of texts, None where one is missing."""
    found = [None if is_missing(value) else value for value in values]
    numbers = [value for value in found if isinstance(value, int | float | np.number) and not isinstance(value, bool)]
    if len(numbers) == sum(value is not None for value in found):
        return np.array([np.nan if value is None else float(value) for value in found], dtype=np.float64)
    return texts([None if value is None else str(value).strip() for value in found])


def is_missing(value: Any) -> bool:
    """Whether a value of a data frame or a record is none: None, NaN, pandas' NA and NaT."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or bool(value != value)


# Sequences


def sequences(inputs: Any, reading: Mapping[str, Any]) -> Sequences:
    """Sequences `(L, D)` of any length, or `(N, L, D)`, standardised as the run's training data were."""
    mean, scale = torch.tensor(reading["mean"]), torch.tensor(reading["scale"])
    single = isinstance(inputs, np.ndarray | Tensor) and inputs.ndim == 2
    found = [torch.as_tensor(np.asarray(one, dtype=np.float32)) for one in as_list(inputs, lambda _: single)]
    for index, one in enumerate(found):
        if one.ndim != 2 or not len(one) or one.shape[1] != len(mean) or not bool(one.isfinite().all()):
            raise GraftError(
                f"inputs[{index}]: a sequence is finite numbers (L, {len(mean)}), and this is {tuple(one.shape)}."
            )
    lengths = torch.tensor([len(one) for one in found])
    padded = torch.nn.utils.rnn.pad_sequence(found, batch_first=True)
    return scaled(Sequences(padded, lengths), mean, scale)


READERS: dict[str, Callable[..., Any]] = {
    "image": pictures,
    "audio": sounds,
    "text": sentences,
    "table": table_rows,
    "sequence": sequences,
}
