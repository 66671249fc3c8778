"""Image files with labels: each is decoded once before anything is trained, and found broken or read."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from graft.config.types import Count
from graft.data.domain import Domain
from graft.data.readers.images import ImageFiles, Look, file_digests, look_into
from graft.data.readers.looks import looks_of
from graft.data.readers.pixels import Found, check_values, checked_range
from graft.data.readers.similar import alike, keys_of
from graft.data.samples import Raw, Samples
from graft.errors import GraftError


class SimilarImages(Domain):
    """A domain of images that knows which of them look alike, by a hash of each that `read` keeps in `hashes`."""

    noun = "images"
    hashes: Mapping[Hashable, np.ndarray | None] = {}

    def near_keys(self, splits: Mapping[str, Samples]) -> Mapping[str, Sequence[Any]] | None:
        """Groups of images that look alike; None where all are too small to be compared."""
        if not any(bits is not None for bits in self.hashes.values()):
            return None
        if self._groups is None:
            self._groups = alike(self.hashes)
        return {name: keys_of(self._groups, samples.contents or ()) for name, samples in splits.items()}

    _groups: dict[Hashable, Hashable] | None = None


class LabelledImages(SimilarImages):
    """A domain of image files."""

    unit = "files"

    def __init__(self, channels: Count = 3, pixel_range: Sequence[float] | None = None, **settings: Any) -> None:
        """`channels`: 3 for colour, 1 for grey, or as many as every file has bands.

        `pixel_range` is `[black, white]`, null is that of the files' type.
        """
        super().__init__(**settings)
        self.channels = channels
        self.stated_range = pixel_range

    def reading(self) -> Mapping[str, Any]:
        """Channels and the range of values."""
        return {"channels": self.channels, "pixel_range": checked_range(self.stated_range, self.key)}

    def with_looks(self, raw: Raw) -> Raw:
        """The samples, whose inputs are files `(N,)`, with what a look into each file found.

        Raises GraftError where no file has as many channels as are asked for, and where nothing says which range of
        numbers is meant.
        """
        pixel_range = checked_range(self.stated_range, self.key)
        files = sorted({file for samples in raw.splits.values() for file in samples.inputs})
        found = looks_of(
            file_digests(files),
            lambda index: look_into(files[index], self.channels),
            self.cache,
            {"channels": self.channels},
        )
        looks = dict(zip(files, found, strict=True))
        self._check_bands(looks)
        usable = {file: look for file, look in looks.items() if not look.problem}
        values = [Found(str(file), look.limit, look.low, look.high) for file, look in usable.items()]
        notes = check_values(values, pixel_range, self.key)
        if pages := sum(look.pages > 1 for look in usable.values()):
            notes += (f"{pages:,} files have several pages or frames, of which the first is read",)
        self.hashes = {look.digest: look.hash for look in usable.values()}
        self._groups = None
        splits = {name: self._looked_into(samples, looks, pixel_range) for name, samples in raw.splits.items()}
        stated = "" if pixel_range is None else f" {pixel_range}"
        return replace(raw, splits=splits, notes=(*raw.notes, *notes), fingerprint=f"{self.channels}{stated}")

    def _looked_into(
        self, samples: Samples, looks: Mapping[Path, Look], pixel_range: tuple[float, float] | None
    ) -> Samples:
        found = [looks[file] for file in samples.inputs]
        return replace(
            samples,
            inputs=ImageFiles(samples.inputs, self.channels, pixel_range),
            contents=[look.digest for look in found],
            problems={index: look.problem for index, look in enumerate(found) if look.problem} | dict(samples.problems),
        )

    def _check_bands(self, looks: Mapping[Path, Look]) -> None:
        """Raise GraftError for channels that no file has."""
        others = {file: look.bands for file, look in looks.items() if look.bands}
        if others and len(others) == sum(not look.problem or bool(look.bands) for look in looks.values()):
            file, bands = next(iter(others.items()))
            raise GraftError(
                f"{self.key}.channels={self.channels}: no image has so many bands; {file} has {bands}. Allowed are 3 "
                f"(colour), 1 (grey), or the bands that every file has: {self.key}.channels={bands}"
            )

    def encode(self, splits: Mapping[str, Samples]) -> tuple[dict[str, Samples], dict[str, Any]]:
        """Files, decoded when asked for."""
        return dict(splits), {"channels": self.channels}
