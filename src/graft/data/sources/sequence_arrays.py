"""Sequences of vectors in an npz: sensor readings, frames of sound, anything with steps."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from graft.data.domain import Split, rows_of
from graft.data.readers.array_file import ArrayFile, Arrays, Found, hashes_of
from graft.errors import GraftError
from graft.inputs.sequence import Sequences, described


class SequenceArrays(ArrayFile):
    """Sequences `(N, L, D)` with a class each and, where they have not all the same, their lengths `(N,)`."""

    word = "sequences"

    def __init__(self, file: str, sequences: str = "sequences", lengths: str = "lengths", **settings: Any) -> None:
        """`lengths` names the arrays that say how many steps count; without them all do."""
        super().__init__(file, sequences, **settings)
        self.lengths = lengths

    def samples_of(self, arrays: Arrays, prefix: str) -> Found:
        """Sequences as they are, zeros behind their ends; those with a NaN or without a step are bad."""
        name = prefix + self.samples
        values = arrays[name]
        if values.ndim != 3 or 0 in values.shape[1:] or values.dtype.kind not in "uif":
            raise GraftError(
                f"{self.key}.file={self.file}: {name} has the shape {values.shape} and the type {values.dtype}; "
                "sequences are numbers of the shape (N, L, D): N sequences of L steps with D values each. "
                f"Name another array: {self.key}.sequences=<name without train_>"
            )
        lengths = self._lengths(arrays, prefix, values)
        steps = values.shape[1]
        bad = {
            index: f"its length is {lengths[index]}, of 1 to {steps} steps"
            for index in np.flatnonzero(~((lengths >= 1) & (lengths <= steps))).tolist()
        }
        inside = np.arange(steps) < lengths[:, None]
        values = np.where(inside[:, :, None], values, 0).astype(np.float32)
        for index in np.flatnonzero(~np.isfinite(values).all(axis=(1, 2))).tolist():
            bad.setdefault(index, "a value is NaN or infinite")
        lengths = lengths.clip(1, steps).astype(np.int64)
        hashes = [digest + length.tobytes() for digest, length in zip(hashes_of(values), lengths, strict=True)]
        return Found(Sequences(torch.from_numpy(values), torch.from_numpy(lengths)), hashes, bad)

    def _lengths(self, arrays: Arrays, prefix: str, values: np.ndarray) -> np.ndarray:
        """How many steps of each sequence count `(N,)`."""
        name = prefix + self.lengths
        if name not in arrays.names:
            return np.full(len(values), values.shape[1])
        lengths = arrays[name]
        if lengths.shape != (len(values),) or lengths.dtype.kind not in "ui":
            raise GraftError(
                f"{self.key}.file={self.file}: {name} has the shape {lengths.shape} and the type {lengths.dtype}; "
                f"lengths are whole numbers, one for each of {len(values):,} sequences. "
                f"Name another array: {self.key}.lengths=<name>"
            )
        return lengths

    def described(self, splits: Mapping[str, Split]) -> dict[str, Any]:
        """Standardised, and how many values a step has, which is the same in every split."""
        sizes = {name: rows_of(split).values.shape[2] for name, split in splits.items()}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{size} in {name}" for name, size in sizes.items())
            raise GraftError(
                f"{self.key}.file={self.file}: steps have different numbers of values, {listed}. "
                "Write all splits with the same number."
            )
        return described(dict(splits))
