"""Image files with labels: each is decoded once before anything is trained, and found broken or read."""

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from graft.config.types import Count
from graft.data.domain import Domain
from graft.data.readers.folders import path_order
from graft.data.readers.images import Decodings, ImageFiles, Look, file_digests, look_into
from graft.data.readers.looks import looks_of
from graft.data.readers.pixels import Found, Range, check_values, checked_range
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
        files = sorted({file for samples in raw.splits.values() for file in samples.inputs}, key=path_order)
        decodings, pixel_range = Decodings(), checked_range(self.stated_range, self.key)

        def look(index: int) -> Look:
            found = look_into(files[index], self.channels)
            if found.image is not None and not found.problem:
                decodings.put(files[index], found.image, self.channels, pixel_range)
            return found

        found = looks_of(file_digests(files), look, self.cache, {"channels": self.channels})
        keys = {name: samples.inputs for name, samples in raw.splits.items()}
        images = functools.partial(ImageFiles, decodings=decodings)
        return self.looked_at(raw, dict(zip(files, found, strict=True)), keys, images)

    def looked_at(
        self,
        raw: Raw,
        looks: Mapping[Any, Look],
        keys: Mapping[str, Sequence[Any]],
        images: Callable[[Any, int, Range | None], Sequence[Tensor]],
    ) -> Raw:
        """The samples with what the looks found, by the keys `(N,)` of every split's samples; errors as `with_looks`.

        `images` takes a split's inputs, channels and range, and gives uint8 `(C, H, W)` by index.
        """
        pixel_range = checked_range(self.stated_range, self.key)
        self._check_bands(looks)
        usable = {key: look for key, look in looks.items() if not look.problem}
        values = [Found(str(key), look.limit, look.low, look.high) for key, look in usable.items()]
        notes = check_values(values, pixel_range, self.key)
        if pages := sum(look.pages > 1 for look in usable.values()):
            notes += (f"{pages:,} files have several pages or frames, of which the first is read",)
        self.hashes = {look.digest: look.hash for look in usable.values()}
        self._groups = None
        splits = {}
        for name, samples in raw.splits.items():
            found = [looks[key] for key in keys[name]]
            problems = {index: look.problem for index, look in enumerate(found) if look.problem}
            splits[name] = replace(
                samples,
                inputs=images(samples.inputs, self.channels, pixel_range),
                contents=[look.digest for look in found],
                problems=problems | dict(samples.problems),
            )
        stated = "" if pixel_range is None else f" {pixel_range}"
        return replace(raw, splits=splits, notes=(*raw.notes, *notes), fingerprint=f"{self.channels}{stated}")

    def _check_bands(self, looks: Mapping[Any, Look]) -> None:
        """Raise GraftError for channels that no file has."""
        others = {key: look.bands for key, look in looks.items() if look.bands}
        if others and len(others) == sum(not look.problem or bool(look.bands) for look in looks.values()):
            key, bands = next(iter(others.items()))
            raise GraftError(
                f"{self.key}.channels={self.channels}: no image has so many bands; {key} has {bands}. Allowed are 3 "
                f"(colour), 1 (grey), or the bands that every file has: {self.key}.channels={bands}"
            )

    def encode(self, splits: Mapping[str, Samples]) -> tuple[dict[str, Samples], dict[str, Any]]:
        """Files, decoded when asked for."""
        return dict(splits), {"channels": self.channels}
