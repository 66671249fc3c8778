"""The feature cache: what a frozen part of a backbone gives for a split is computed once, and kept for every job.

It knows nothing of images: inputs are whatever the data module gives and the backbone takes.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from graft.backbones.cut import Cut
from graft.cache.disk import DiskCache, NoRoom
from graft.cache.key import cache_key, code_hash, versions
from graft.cache.rows import MappedRows, write_rows

# Source files and libraries that decide what an activation is.
CODE = ("backbones", "cache", "data", "features.py", "strategies/base.py")
PACKAGES = ("torch", "torchvision", "timm")
LARGEST_GROWTH = 4  # activations of so many times the input's numbers are faster computed than read


@dataclass(frozen=True)
class Stored:
    """What is known of one split's activations, for results.json."""

    cut: str  # the module behind which they are taken, or features
    domain: str
    part: str
    samples: int
    bytes: int
    computed: bool  # in this run, not by an earlier one
    seconds: float


class FeatureCache:
    """Activations on disk, by the content of weights, data, transform and code."""

    def __init__(self, disk: DiskCache) -> None:
        self.disk = disk
        self.report: list[Stored] = []
        self.refused: str | None = None  # why something is not kept

    def rows(
        self,
        cut: Cut,
        depends_on: Mapping[str, Any],
        batches: Callable[[], Iterable[Any]],
        samples: int,
        context: Callable[[], AbstractContextManager],
        domain: str,
        part: str,
    ) -> MappedRows | None:
        """Activations `(samples, ...)` of the inputs in `batches`, from the disk where they are there.

        `context` is entered for every batch, such as autocast. None where they are too large to be worth keeping.
        """
        started, computed = time.perf_counter(), False

        @torch.inference_mode()
        def make(folder: Path) -> None:
            nonlocal computed
            computed = True
            write_rows(folder, map(activations, batches()))

        def activations(inputs: Any) -> torch.Tensor:
            with context():
                return cut.begin(inputs)

        numbers = math.prod(cut.shape)
        if not cut.whole and numbers > LARGEST_GROWTH * math.prod(cut.backbone.input_shape):
            return None
        size = samples * numbers * next(cut.backbone.parameters()).element_size()
        key = cache_key({"cut": cut.name, "code": code_hash(CODE), **versions(PACKAGES), **depends_on})
        try:
            rows = self.disk.get(key, size, make, MappedRows)
        except NoRoom as error:
            self.refused = str(error)
            return None
        seconds = time.perf_counter() - started
        self.report.append(Stored(cut.name, domain, part, samples, size, computed, seconds))
        return rows

    def describe(self) -> dict[str, Any]:
        """For results.json."""
        return {"entries": [asdict(entry) for entry in self.report], "refused": self.refused}
