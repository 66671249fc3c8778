"""What a command line gives to predict on: a file, a folder, a table, or lines of standard input."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graft.data.readers import images, recordings
from graft.data.readers.array_file import Arrays
from graft.data.readers.folders import listing_of
from graft.data.readers.table import Table, column_name, read_table, texts
from graft.errors import GraftError, first_line, listed
from graft.files import user_path
from graft.inputs.columns import Columns
from graft.model.inputs import FILE, checked_multimodal, checked_table, table_of

STANDARD_INPUT = "-"
PATHS = "path"  # the column of a table that names files, where `column` names no other
LINES = (".jsonl", ".ndjson")
TABLES = (".csv", ".tsv", ".tab", ".parquet", ".pq")
TEXTS = (".txt", ".text")
ARRAYS = (".npy", ".npz")
IMAGES = "images"  # the array of an .npz that is read where `column` names no other


@dataclass(frozen=True)
class Found:
    """N inputs: what `Model.predict` takes, what each is called, and what could not even be read, with a reason."""

    inputs: Any  # by index or slice
    names: Sequence[str]
    unread: list[tuple[str, str]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> number of files that are no inputs
    unknown: Sequence[str] = ()  # columns that the network does not know

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, start: int, stop: int) -> Any:
        """Some of the inputs."""
        if isinstance(self.inputs, Table):
            return self.inputs.rows(np.arange(start, stop))
        return self.inputs[start:stop]


def found_in(place: str, modality: str, reading: dict[str, Any], column: str, columns: Columns | None) -> Found:
    """The inputs of a modality at a place.

    `column` names where a table holds texts or files' paths, or the array of an .npz with images; `columns` are those
    of a network for tables. Raises GraftError where there is nothing that such a network takes.
    """
    path = user_path(place)
    if place != STANDARD_INPUT and not path.exists():
        raise GraftError(f"input={place}: there is no such file or folder.")
    if place == STANDARD_INPUT and modality != "text":
        raise GraftError(
            f"input=-: only a model of texts reads standard input, and this one is of modality {modality}. Give a file."
        )
    if modality == "image" and path.suffix.lower() == ".npz":
        return images_in(path, column)
    if modality == "image":
        return files_in(path, images.extensions(), column)
    if modality == "audio":
        return files_in(path, recordings.EXTENSIONS, column)
    if modality == "text":
        return texts_in(place, path, column)
    if modality == "multimodal" and path.is_dir():
        return pairs_in(path, reading["media"], columns)
    if modality in ("table", "multimodal"):
        return rows_in(path, reading, columns, checked_table if modality == "table" else checked_multimodal)
    return arrays_in(path)


def files_in(path: Path, endings: Any, column: str) -> Found:
    """A file, all files with these endings below a folder, or those that a table names."""
    if path.is_dir():
        listing = listing_of(path, endings)
        if not listing.files:
            raise GraftError(f"input={path}: no file there is read. Endings: {', '.join(sorted(endings))}.")
        return Found(listing.files, [str(file) for file in listing.files], listing.unread, dict(listing.left_out))
    if path.suffix.lower() in (*TABLES, *LINES):
        table = texts_table(path)
        values = table.columns[column_name(table, column, "column")]
        files = [path.parent / user_path(str(value)) for value in values if value is not None]
        return Found(files, [str(file) for file in files], named(table))
    return Found([path], [str(path)])


def images_in(path: Path, column: str) -> Found:
    """Images `(N, H, W)` or `(N, H, W, C)` of a .npz, in the array that `column` names, else in `images`."""
    with Arrays(path, "input", IMAGES) as arrays:
        name = IMAGES if column == PATHS else column
        if name not in arrays.names:
            raise GraftError(
                f"input={path}: there is no array {name}. Name the one with the images: column=<one of "
                f"{', '.join(arrays.names) or 'none'}>"
            )
        values = arrays[name]
    if values.ndim not in (3, 4):
        raise GraftError(
            f"input={path}: {name} has the shape {values.shape}; images are (N, H, W) or (N, H, W, C), the channels "
            "last. Name another array: column=<name>"
        )
    return Found([*values], [f"{name}[{index}]" for index in range(len(values))])


def texts_in(place: str, path: Path, column: str) -> Found:
    """Lines of a text file or of standard input, or a column of a table or of JSON lines."""
    if place == STANDARD_INPUT or path.suffix.lower() in TEXTS:
        lines = sys.stdin.read().splitlines() if place == STANDARD_INPUT else path.read_text("utf-8").splitlines()
        kept = [(f"line {number}", line) for number, line in enumerate(lines, start=1) if line.strip()]
        return Found([line for _, line in kept], [name for name, _ in kept])
    if path.is_dir():
        raise GraftError(f"input={path}: that is a folder. Give a file of texts, or - for lines of standard input.")
    table = texts_table(path)
    values = table.columns[column_name(table, column, "column")]
    missing = [(f"row {line}", "its text is empty") for line, text in zip(table.lines, values, strict=True) if not text]
    rows = [(f"row {line}", text) for line, text in zip(table.lines, values, strict=True) if text]
    return Found([text for _, text in rows], [name for name, _ in rows], [*named(table), *missing])


def rows_in(path: Path, reading: dict[str, Any], columns: Columns | None, check: Callable[..., Any]) -> Found:
    """Rows of a table; those with a value that is no number where one is wanted are left out, with a reason."""
    table = records_in(path) if path.suffix.lower() in LINES else table_of(path, reading)
    kept, problems = check(table, reading, columns)
    unread = [(f"row {line}", problem) for line, problem in problems]
    known = {column.name for column in (columns.all if columns else ())} | {*reading.get("media", {}).values()}
    unknown = [name for name in table.columns if name not in known]
    return Found(kept, [f"row {line}" for line in kept.lines], unread, unknown=unknown)


def pairs_in(path: Path, media: dict[str, str], columns: Columns | None) -> Found:
    """Samples of a folder and those in it: files of one name and different endings are one, `7.txt` with `7.png`.

    What a sample has no file of is a missing modality. Raises GraftError for a network that takes table fields too, and
    where a sample has two files of one modality.
    """
    if columns is not None:
        raise GraftError(
            f"input={path}: this network takes table fields beside {listed([*media])}, and a folder has none. Give a "
            f"table with the columns {listed([*media.values(), *(one.name for one in columns.all)])}: input=<file.csv>"
        )
    endings = {ending: name for name in media for ending in endings_of(name)}
    listing = listing_of(path, endings)
    if not listing.files:
        raise GraftError(f"input={path}: no file there is read. Endings: {', '.join(sorted(endings))}.")
    values: dict[str, dict[str, Any]] = {}
    unread = [*listing.unread]
    for file in listing.files:
        name, sample = endings[file.suffix.lower()], str(file.with_suffix(""))
        if name in (own := values.setdefault(sample, {})):
            raise GraftError(f"input={path}: {file} and {own[name]} are both the {name} of {sample}. Leave one there.")
        own[name] = file
    for sample, own in [*values.items()]:
        try:
            own |= {"text": own["text"].read_text("utf-8").strip()} if "text" in own else {}
        except (OSError, UnicodeDecodeError) as error:
            unread.append((sample, first_line(error)))
            del values[sample]
    found = {
        column: texts([None if (one := own.get(name)) is None else str(one) for own in values.values()])
        for name, column in media.items()
    }
    table = Table(str(path / "samples"), found, np.arange(1, len(values) + 1))
    return Found(table, [*values], unread, dict(listing.left_out))


def endings_of(modality: str) -> Sequence[str]:
    """Of the files that hold texts, images or recordings."""
    return {"text": TEXTS, "image": sorted(images.extensions()), "audio": sorted(recordings.EXTENSIONS)}[modality]


def texts_table(path: Path) -> Table:
    """A table whose values stay as they are written."""
    return records_in(path) if path.suffix.lower() in LINES else read_table(path, FILE, None, True, "utf-8", ())


def records_in(path: Path) -> Table:
    """A table of JSON lines."""
    records = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        try:
            if line.strip():
                records.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise GraftError(f"input={path}, line {number}: it is no JSON object ({error}).") from None
    return table_of(records, {})


def arrays_in(path: Path) -> Found:
    """Sequences of a .npy `(N, L, D)`, or of a .npz with `sequences` and, where they differ, `lengths`."""
    if path.suffix.lower() not in ARRAYS:
        raise GraftError(f"input={path}: sequences are read from {' and '.join(ARRAYS)} files.")
    content = np.load(path, allow_pickle=False)
    values = content if isinstance(content, np.ndarray) else content["sequences"]
    lengths = np.full(len(values), values.shape[1])
    if not isinstance(content, np.ndarray) and "lengths" in content:
        lengths = content["lengths"]
    found = [one[:length] for one, length in zip(values, lengths, strict=True)]
    return Found(found, [f"sequence {index}" for index in range(len(found))])


def named(table: Table) -> list[tuple[str, str]]:
    """The rows of a table that could not be read."""
    return [(f"row {line}", problem) for line, problem in sorted(table.bad.items())]
