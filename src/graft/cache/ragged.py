"""Sequences of different lengths in a file, read by index without coming into memory as a whole."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from graft.cache.rows import MappedFile

VALUES, LENGTHS = "values.bin", "lengths.npy"


class MappedSequences:
    """Sequences `(L,)` of numbers in a file; indexing by `(B,)` gives a list of copies.

    Raises OSError or ValueError where the file is not whole.
    """

    dtype: torch.dtype

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.lengths = torch.from_numpy(np.load(self.folder / LENGTHS))  # (N,)
        self._ends = self.lengths.cumsum(0)
        self._file = MappedFile(self.folder / VALUES) if self.lengths.sum() else None
        size = len(self._file.bytes) if self._file else 0
        if size != self.lengths.sum() * self.dtype.itemsize:
            raise ValueError(f"{self.folder / VALUES} has another size than {LENGTHS} says")

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, indices: Tensor) -> list[Tensor]:
        width = self.dtype.itemsize
        ends, lengths = (self._ends[indices] * width).tolist(), (self.lengths[indices] * width).tolist()
        if self._file is None:
            return [torch.empty(0, dtype=self.dtype) for _ in lengths]
        values = self._file.bytes
        found = [values[end - length : end].view(self.dtype).clone() for end, length in zip(ends, lengths, strict=True)]
        self._file.count(len(found), max(lengths, default=0))
        return found

    def __reduce__(self) -> tuple[type["MappedSequences"], tuple[Path]]:
        """Worker processes map the file again."""
        return type(self), (self.folder,)


class MappedTokens(MappedSequences):
    """Numbers of tokens."""

    dtype = torch.int32


class MappedWaveforms(MappedSequences):
    """Sound pressure over time, 1 is full scale."""

    dtype = torch.float32


def write_tokens(folder: Path, batches: Iterable[Sequence[Sequence[int]]]) -> None:
    """Write the token ids of each batch's texts one after the other."""
    lengths: list[int] = []
    with (folder / VALUES).open("wb") as file:
        for batch in batches:
            np.fromiter(itertools.chain.from_iterable(batch), dtype=np.int32).tofile(file)
            lengths += map(len, batch)
    np.save(folder / LENGTHS, np.array(lengths, dtype=np.int64))


def write_sequences(folder: Path, sequences: Iterable[Tensor]) -> None:
    """Write sequences `(L,)` one after the other."""
    lengths = []
    with (folder / VALUES).open("wb") as file:
        for sequence in sequences:
            sequence.numpy().tofile(file)
            lengths.append(len(sequence))
    np.save(folder / LENGTHS, np.array(lengths, dtype=np.int64))
