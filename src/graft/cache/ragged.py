"""Sequences of different lengths in a file, read by index without coming into memory as a whole."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

VALUES, LENGTHS = "values.npy", "lengths.npy"


class MappedSequences:
    """Integer sequences `(L,)` in a file; indexing by `(B,)` gives a list of copies.

    Raises OSError or ValueError where the file is not whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.lengths = torch.from_numpy(np.load(self.folder / LENGTHS))  # (N,)
        self._values = np.load(self.folder / VALUES, mmap_mode="r")
        self._ends = self.lengths.cumsum(0)
        if len(self._values) != self.lengths.sum():
            raise ValueError(f"{self.folder / VALUES} has another size than {LENGTHS} says")

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, indices: Tensor) -> list[Tensor]:
        ends, lengths = self._ends[indices].tolist(), self.lengths[indices].tolist()
        return [
            torch.from_numpy(self._values[end - length : end].astype(np.int64))
            for end, length in zip(ends, lengths, strict=True)
        ]

    def __reduce__(self) -> tuple[type["MappedSequences"], tuple[Path]]:
        """Worker processes map the file anew."""
        return MappedSequences, (self.folder,)


def write_sequences(folder: Path, sequences: Iterable[list[int]]) -> None:
    """Write sequences of integers one after the other."""
    arrays = [np.array(sequence, dtype=np.int32) for sequence in sequences]
    np.save(folder / VALUES, np.concatenate([np.zeros(0, dtype=np.int32), *arrays]))
    np.save(folder / LENGTHS, np.array([len(array) for array in arrays], dtype=np.int64))
