"""From what a user has (paths, pictures, arrays, texts, tables, sound) to samples as a run's own data gave them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from graft.data.readers.counts import with_shares
from graft.data.readers.images import ImageFiles
from graft.data.readers.in_memory import Pictures, Sounds, is_path
from graft.data.readers.numerals import plainly, read_numerals
from graft.data.readers.recordings import SoundFiles
from graft.data.readers.table import Table, read_table, texts, without_missing
from graft.data.readers.table_source import encode, wrong_values
from graft.data.readers.texts import Texts
from graft.errors import GraftError, listed
from graft.files import user_path
from graft.inputs.columns import Columns
from graft.inputs.sequence import Sequences, scaled
from graft.model.multimodal import multimodal_rows, split_media

FILE = "data.target.file"  # the key that messages of the readers name


def samples_of(modality: str, inputs: Any, reading: Mapping[str, Any], **options: Any) -> Any:
    """Samples by index, as the modality's transform takes them. Raises GraftError for what cannot be read."""
    if modality not in READERS:
        raise GraftError(f"There is no way to predict on {modality} inputs.")
    return READERS[modality](inputs, reading, **options)


def as_list(inputs: Any, single: Callable[[Any], bool]) -> list[Any]:
    """Several inputs, also where one alone is given."""
    return [inputs] if single(inputs) else list(inputs)


def is_file(one: Any) -> bool:
    """Whether an input names a file, or is what a file holds."""
    return is_path(one) or isinstance(one, bytes)


def files_of(paths: Sequence[str | Path | bytes]) -> list[Path | bytes]:
    """The files that paths name, and bytes as they are. Raises GraftError for files that are not there."""
    files = [one if isinstance(one, bytes) else user_path(one) for one in paths]
    if missing := [str(file) for file in files if isinstance(file, Path) and not file.is_file()]:
        raise GraftError(f"There is no file {listed(missing)}.")
    return files


# Images


def pictures(inputs: Any, reading: Mapping[str, Any]) -> Sequence:
    """Images from paths, bytes of files, PIL images, arrays `(H, W, C)`, or tensors `(C, H, W)`."""
    array = isinstance(inputs, np.ndarray | Tensor)
    single = is_file(inputs) or isinstance(inputs, Image.Image) or (array and inputs.ndim < 4)
    found = as_list(inputs, lambda _: single)
    stated = reading.get("pixel_range")
    pixel_range = None if stated is None else (float(stated[0]), float(stated[1]))
    if all(map(is_file, found)):
        return ImageFiles(files_of(found), reading["channels"], pixel_range)
    return Pictures(found, "inputs", reading["channels"], pixel_range)


# Sound


def sounds(inputs: Any, reading: Mapping[str, Any], sample_rate: int | None = None) -> Sequence:
    """Recordings from paths, bytes of files, pairs of waveform and sample rate, or waveforms of one `sample_rate`."""
    waveform = isinstance(inputs, np.ndarray | Tensor) and inputs.ndim == 1
    pair = isinstance(inputs, tuple) and len(inputs) == 2 and isinstance(inputs[1], int)
    found = as_list(inputs, lambda one: is_file(one) or waveform or pair)
    if all(map(is_file, found)):
        return SoundFiles(files_of(found))
    return Sounds(found, "inputs", sample_rate)


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


def multimodal(inputs: Any, reading: Mapping[str, Any], columns: Columns | None) -> Any:
    """Samples of several modalities from a file, a data frame, columns by name, or a list of records.

    Texts, and paths or bytes of files, stand in the columns in which the run's stood; an empty value is a missing
    modality.
    """
    table, problems = checked_multimodal(table_of(inputs, reading), reading, columns)
    if problems:
        line, problem = problems[0]
        raise GraftError(f"{table.file}, row {line}: {problem}.")
    return multimodal_rows(table, reading, columns)


def checked_multimodal(
    table: Table, reading: Mapping[str, Any], columns: Columns | None
) -> tuple[Table, list[tuple[int, str]]]:
    """The same as `checked_table` for rows that hold texts and paths too."""
    split_media(table, reading["media"])
    return checked_table(table, reading, columns or Columns(()))


def checked_table(table: Table, reading: Mapping[str, Any], columns: Columns) -> tuple[Table, list[tuple[int, str]]]:
    """The rows of a table that can be used, with plain numbers; by line what is wrong with the others.

    Raises GraftError for columns that are missing.
    """
    if missing := [column.name for column in columns.all if column.name not in table.columns]:
        raise GraftError(f"{table.file}: it has no column {listed(missing)}. Columns: {', '.join(table.columns)}.")
    if decimal := reading.get("decimal"):
        table = with_plain_numbers(table, columns, decimal)
    wrong = wrong_values(table, columns)
    table = with_shares(table, reading.get("shares", ()))
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
    """Values as an array of float64, NaN where one is missing, or of texts, None where one is missing.

    Bytes, which are files, stay as they are.
    """
    found = [None if is_missing(value) else value for value in values]
    numbers = [value for value in found if isinstance(value, int | float | np.number) and not isinstance(value, bool)]
    if len(numbers) == sum(value is not None for value in found):
        return np.array([np.nan if value is None else float(value) for value in found], dtype=np.float64)
    kept: list[Any] = [one if one is None or isinstance(one, bytes) else str(one).strip() for one in found]
    return texts(kept)


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
    "multimodal": multimodal,
}
