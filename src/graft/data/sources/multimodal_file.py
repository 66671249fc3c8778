"""Samples of several modalities: a table whose columns hold texts, or name images and recordings, beside its values."""

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graft.config.types import Count
from graft.data.readers import images, recordings
from graft.data.readers.looks import looks_of
from graft.data.readers.multimodal import FILES, placed, rows_with
from graft.data.readers.table import Table, TablePart, column_name, to_texts
from graft.data.readers.table_source import contents_of, encode_splits
from graft.data.readers.texts import Texts, normalised
from graft.data.samples import Raw, Samples, rows_of, sha256
from graft.data.sources.table_file import TableFile
from graft.errors import GraftError
from graft.files import user_path
from graft.inputs.fusion import MultimodalRows

MEDIA = ("text", "image", "audio")


class MultimodalFile(TableFile):
    """A CSV or Parquet file of samples; `text`, `image` and `audio` name columns, and the others are table fields.

    An empty text or path is a modality that the sample lacks. Without a column that is left the samples have no table.
    """

    modality = "multimodal"
    noun = "samples"
    unit = "rows"
    reads_beside = False
    copies_stay_together = True

    def __init__(
        self,
        file: str,
        label: str | int | Sequence[str | int],
        text: str | int | None = None,
        image: str | int | None = None,
        audio: str | int | None = None,
        folder: str | None = None,
        channels: Count = 3,
        **settings: Any,
    ) -> None:
        """Columns by name or number; paths are below `folder`, null is that of the file they stand in."""
        super().__init__(file, label, **settings)
        self.media = {name: one for name, one in zip(MEDIA, (text, image, audio), strict=True) if one is not None}
        self.folder = None if folder is None else user_path(folder)
        self.channels = channels
        self.names: dict[str, str] = {}  # of the media's columns, once the table is read
        self._columns: dict[str, dict[str, np.ndarray]] = {}  # by split and modality the values of its column

    def tables(self) -> dict[str, Table]:
        """Every file, without the columns of texts and paths."""
        if not self.media:
            raise GraftError(
                f"{self.key}: neither text, image nor audio names a column, so that this is a table alone. Name one, "
                f"{self.key}.text=<column>, or read it as a table: data=table data/domain@data.target=table_file"
            )
        if self.folder is not None and not self.folder.is_dir():
            raise GraftError(
                f"{self.key}.folder={self.folder}: no such folder. Paths of images and sound are below it."
            )
        tables = super().tables()
        for split, table in tables.items():
            self.names = {name: column_name(table, one, f"{self.key}.{name}") for name, one in self.media.items()}
            if len({*self.names.values()}) < len(self.names):
                raise GraftError(f"{self.key}: {self.names} name one column twice.")
            self._columns[split] = {name: to_texts(table.columns[one]) for name, one in self.names.items()}
            others = {name: values for name, values in table.columns.items() if name not in self.names.values()}
            tables[split] = replace(table, columns=others)
        return tables

    def check_features(self, table: Table, names: Sequence[str], labels: Sequence[str]) -> None:
        """Samples without a table are fine: there is another modality."""

    def read(self) -> Raw:
        """The samples of every split; each image and recording is looked into."""
        raw = super().read()
        found = {
            name: self._looks(name, [(split, path) for split in raw.splits for path in self._columns[split][name]])
            for name in FILES
            if name in self.media
        }
        return replace(raw, splits={split: self._with_media(split, one, found) for split, one in raw.splits.items()})

    def _with_media(
        self, split: str, samples: Samples, found: Mapping[str, Mapping[Path, tuple[bytes, str]]]
    ) -> Samples:
        """The samples of a split with their texts, images and recordings, and what is wrong with those."""
        table: Table = samples.inputs
        values = self._columns[split]
        problems: dict[int, str] = {}
        of_table = contents_of(table, list(table.columns)) if table.columns else [b""] * len(samples)
        contents: list[list[Any]] = [[one] for one in of_table]
        for name, column in values.items():
            for index, value in enumerate(column):
                known = value
                if name in FILES and value is not None:
                    known, problem = found[name][self.located(split, value)]
                    if problem:
                        problems.setdefault(index, f"{name} {value}: {problem}")
                contents[index].append(known)
        paths = {
            name: [None if one is None else self.located(split, one) for one in values[name]]
            for name in FILES
            if name in values
        }
        rows = rows_with(table if table.columns else None, values.get("text"), paths, self.channels)
        nothing = ~torch.stack([*rows.present.values()]).any(0)
        problems |= {index: "it has no modality at all" for index in nothing.nonzero()[:, 0].tolist()}
        return replace(
            samples,
            inputs=rows,
            contents=[hashlib.sha256(repr(one).encode()).digest() for one in contents],
            problems=problems | dict(samples.problems),
        )

    def _looks(self, name: str, places: Sequence[tuple[str, str | None]]) -> dict[Path, tuple[bytes, str]]:
        """By file a hash of its content, and what is wrong with it, empty where nothing is."""
        files = sorted({self.located(split, path) for split, path in places if path is not None})
        if name == "audio":
            return dict(zip(files, map(recordings.inspect, files), strict=True))
        look: Callable[[int], images.Look] = lambda index: images.look_into(files[index], self.channels)  # noqa: E731
        looks = looks_of(images.file_digests(files), look, self.cache, {"channels": self.channels})
        return {file: (one.digest, one.problem) for file, one in zip(files, looks, strict=True)}

    def located(self, split: str, path: str) -> Path:
        """The file that a row of a split's table names."""
        return placed(self.folder or self.files[split].parent, path)

    def near_keys(self, splits: Mapping[str, Samples]) -> dict[str, list[Hashable]] | None:
        """Texts without case, punctuation and blanks; nothing is compared where there are none."""
        if "text" not in self.media:
            return None
        return {
            name: [normalised(text) or f"no {name} {index}" for index, text in enumerate(texts_in(rows_of(samples)))]
            for name, samples in splits.items()
        }

    def reading(self) -> Mapping[str, Any]:
        """The media's columns, where their files are, and how the table is read."""
        return {**super().reading(), "media": self.names, "channels": self.channels}

    def encode(self, splits: Mapping[str, Samples]) -> tuple[dict[str, Samples], dict[str, Any]]:
        """Table fields as numbers and codes, by what train says of the columns; the rest as it is."""
        rows: dict[str, MultimodalRows] = {name: rows_of(samples) for name, samples in splits.items()}
        arguments: dict[str, dict[str, Any]] = {name: {} for name in rows["train"].fields}
        if "text" in arguments:
            arguments["text"] = {"texts": Texts(texts_in(rows["train"]))}
        if "image" in arguments:
            arguments["image"] = {"channels": self.channels}
        if "table" not in arguments:
            encoded = {name: replace(samples, inputs=rows[name]) for name, samples in splits.items()}
            return encoded, {"backbone_arguments": arguments, "notes": missing_notes(rows["train"])}
        tables = {name: TablePart(rows_of(as_samples(one.fields["table"])), None) for name, one in rows.items()}
        columns, notes = self._fit(tables["train"])
        arguments["table"] = {"columns": columns}
        fitted = sha256([repr(columns).encode()])
        fields, problems = encode_splits(tables, columns)
        whole = {name: MultimodalRows({**one.fields, "table": fields[name]}, one.present) for name, one in rows.items()}
        encoded = {
            name: replace(samples, inputs=whole[name], problems=problems[name], fitted=fitted)
            for name, samples in splits.items()
        }
        return encoded, {"backbone_arguments": arguments, "notes": (*notes, *missing_notes(rows["train"]))}


def as_samples(inputs: Any) -> Samples:
    """Inputs as `rows_of` takes them."""
    return Samples(inputs, (), (), None)


def texts_in(rows: MultimodalRows) -> list[str]:
    """All texts, empty where one is missing."""
    texts = rows.fields["text"]
    return [texts[index] for index in range(len(texts))]


def missing_notes(rows: MultimodalRows) -> tuple[str, ...]:
    """How many training samples lack a modality."""
    lacking = {name: int((~there).sum()) for name, there in rows.present.items()}
    return tuple(f"{number:,} training samples have no {name}" for name, number in lacking.items() if number)
