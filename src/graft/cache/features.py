"""The feature cache: what a frozen part of a backbone gives for a split is computed once, and kept for every job.

It knows nothing of images: inputs are whatever the data module gives and the backbone takes.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graft.backbones.maps import MapsSplit
from graft.backbones.split_backbone import SplitBackbone
from graft.cache.disk import DiskCache, NoRoom
from graft.cache.key import cache_key, code_used, numerics
from graft.cache.maps import MappedMaps, MapsWriter
from graft.cache.rows import MappedRows, RowWriter
from graft.notes import say_once

MANY = 1000  # samples; fewer take no time worth a line
LARGEST_GROWTH = 4  # from this many activations per number of the input on, computing is faster than reading


@dataclass(frozen=True)
class Stored:
    """What is known of one split's activations, for results.json."""

    cut: str  # the module behind which they are taken, or features
    domain: str
    split: str
    samples: int
    bytes: int
    computed: bool  # in this run, not by an earlier one
    seconds: float


class Wanted:
    """Activations at a cut, of what `depends_on` says; `parts` are what makes the inputs (see `code_used`).

    `scale` is how large a sample is, the mean over a split, over the inputs of the backbone's own size.
    """

    def __init__(
        self, cut: SplitBackbone, depends_on: Mapping[str, Any], parts: Sequence[Any] = (), scale: float = 1.0
    ) -> None:
        self.cut = cut
        self.scale = scale
        layers = {type(module) for module in cut.subject.modules()}
        network = {"cut": cut.name, "folded": cut.fold, "name": cut.backbone.name, "layers": repr(cut.subject)}
        code = code_used(__name__, *layers, *parts)
        self.key = cache_key({**network, "code": code, "numerics": numerics(), **depends_on})

    @property
    def worthwhile(self) -> bool:
        """Whether they are small enough; a vector always is."""
        if self.cut.whole or self.cut.backbone.input_shape is None:
            return True
        return math.prod(self.cut.shape) <= LARGEST_GROWTH * math.prod(self.cut.backbone.input_shape)

    def bytes(self, samples: int) -> int:
        """What they take for a number of samples."""
        numbers = math.ceil(samples * math.prod(self.cut.shape) * self.scale)
        return numbers * next(self.cut.backbone.parameters()).element_size()

    def writer(self, folder: Path) -> Any:
        """What writes them, batch by batch with the samples' indices."""
        return MapsWriter(folder) if isinstance(self.cut, MapsSplit) else RowWriter(folder)

    def read(self, folder: Path) -> Any:
        """What has been written, by indices `(B,)`."""
        return MappedMaps(folder) if isinstance(self.cut, MapsSplit) else MappedRows(folder)


class FeatureCache:
    """Activations on disk, by the content of weights, data, transform and code."""

    def __init__(self, disk: DiskCache) -> None:
        self.disk = disk
        self.entries: dict[str, Stored] = {}  # what was computed or first read here, by key
        self._made: set[str] = set()  # keys of what this run has computed
        self.refused: str | None = None  # why something is not kept

    def rows(
        self,
        wanted: Wanted,
        also: Sequence[Wanted],
        batches: Callable[[], Iterable[tuple[Tensor, Any]]],
        samples: int,
        context: Callable[[], AbstractContextManager],
        domain: str,
        split: str,
    ) -> Any:
        """Activations `(samples, ...)` of `batches` of indices and inputs, as rows or maps; from the disk if there.

        Where they have to be computed, the same pass computes what is wanted later, `also`. `context` is entered for
        every batch, such as autocast. None where they are too large to be worth keeping.
        """
        started = time.perf_counter()
        if not wanted.worthwhile:
            return None

        def compute(made: Sequence[Wanted], folders: Sequence[Path]) -> None:
            if samples >= MANY:
                print(f"Computing frozen features of {samples:,} samples, kept in {folders[0].parent}", flush=True)
            last, *earlier = sorted((one.cut for one in made), key=lambda cut: -cut.place)
            writers_of = {one.cut.name: one.writer(folder) for one, folder in zip(made, folders, strict=True)}
            with torch.inference_mode(), ExitStack() as stack:
                writers = [stack.enter_context(writers_of[cut.name]) for cut in (last, *earlier)]
                for indices, inputs in batches():
                    with context():
                        activations = last.trunk_all(inputs, earlier)
                    for writer, values in zip(writers, activations, strict=True):
                        writer.append(values, indices)
            self._made.update(one.key for one in made)

        def make_together(missing: Sequence[Wanted], folders: Sequence[Path]) -> None:
            """Lock one entry after the other, always in the same order, and fill all of them in one pass."""
            if len(folders) == len(missing):
                compute(missing, folders)
                return
            one = missing[len(folders)]
            make = lambda folder: make_together(missing, [*folders, folder])  # noqa: E731
            self.disk.get(one.key, partial(one.bytes, samples), make, lambda _: None)

        try:
            missing = {one.key: one for one in (wanted, *also) if one.worthwhile and not self.disk.has(one.key)}
            if wanted.key in missing and len(missing) > 1:
                with suppress(NoRoom):  # for all of them; there may be for one
                    make_together([missing[key] for key in sorted(missing)], [])
            size, alone = partial(wanted.bytes, samples), partial(compute, [wanted])
            rows = self.disk.get(wanted.key, size, lambda folder: alone([folder]), wanted.read)
        except NoRoom as error:
            self.refused = str(error)
            say_once(f"What the frozen part makes of {domain} {split} is computed in every epoch: {error}.")
            return None
        seconds, computed = time.perf_counter() - started, wanted.key in self._made
        entry = Stored(wanted.cut.name, domain, split, samples, wanted.bytes(samples), computed, seconds)
        self.entries.setdefault(wanted.key, entry)
        return rows

    def describe(self) -> dict[str, Any]:
        """For results.json."""
        return {"entries": [asdict(entry) for entry in self.report], "refused": self.refused}

    @property
    def report(self) -> list[Stored]:
        """What is known of all that was computed or read, in that order."""
        return [*self.entries.values()]
