"""A tensor `(N, ...)` in a file: written once from batches, read by index without coming into memory as a whole."""

import json
import math
import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from graft.cache.in_use import hold

DATA, META = "rows.bin", "rows.json"
RESIDENT = 2**26  # bytes of a file that may stay in this process's memory; the system's own cache keeps the rest
FAULT_AROUND = 2**16  # bytes that Linux maps at once around the first one that is touched


class Rows(Protocol):
    """What is kept of N samples, by indices `(B,)`: tensors, or maps of images (graft.cache.maps)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor) -> Any: ...


def name_of(dtype: torch.dtype) -> str:
    """A dtype as a description names it, such as float32."""
    return str(dtype).removeprefix("torch.")


def dtype_said(file: Path, name: str) -> torch.dtype:
    """The dtype that a description names. Raises ValueError, with the description's file, for one that there is not."""
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{file} says dtype={name}, which is none")
    return dtype


class MappedFile:
    """The bytes of a file, mapped into memory and given back after every RESIDENT bytes that were read.

    As long as the map lives the file counts as in use: no cache removes it.
    """

    def __init__(self, file: Path) -> None:
        self.file = Path(file)
        with self.file.open("rb") as opened:
            hold(opened)  # the map keeps a copy of the descriptor, and with it the lock
            self._map = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        self.bytes = torch.frombuffer(self._map, dtype=torch.uint8)  # (size,); only to be read
        self._gives_back = len(self.bytes) > RESIDENT and hasattr(mmap, "MADV_DONTNEED")
        self._touched = 0

    def count(self, pieces: int, piece_bytes: int) -> None:
        """Note how many pieces, each somewhere in the file, were read and copied: nobody holds a view of them."""
        self._touched += pieces * max(piece_bytes, FAULT_AROUND)
        if self._gives_back and self._touched >= RESIDENT:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._touched = 0


class MappedRows:
    """A tensor in a file; indexing by indices `(B,)` or a slice gives a copy of those rows.

    Raises OSError or ValueError where the file is not whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        meta = json.loads((self.folder / META).read_text())
        dtype, shape = dtype_said(self.folder / META, meta["dtype"]), meta["shape"]
        self._file = MappedFile(self.folder / DATA)
        if len(self._file.bytes) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{self.folder / DATA} has another size than its description says")
        self._rows = self._file.bytes.view(dtype).view(shape)
        self._row_bytes = math.prod(shape[1:]) * dtype.itemsize
        self._channels_last = meta["channels_last"]
        self.shape = self._as_written(self._rows).shape

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Tensor | Sequence[int] | slice) -> Tensor:
        if isinstance(index, slice):
            rows = self._rows[index].clone()
            self._file.count(1, len(rows) * self._row_bytes)
        else:
            rows = self._rows.index_select(0, torch.as_tensor(index))
            self._file.count(len(rows), self._row_bytes)
        return self._as_written(rows)

    def _as_written(self, rows: Tensor) -> Tensor:
        return rows.permute(0, 3, 1, 2) if self._channels_last else rows

    def __reduce__(self) -> tuple[type["MappedRows"], tuple[Path]]:
        """Worker processes map the file again."""
        return MappedRows, (self.folder,)


class TakenRows:
    """Some rows `(M, ...)` of others, by their indices `(M,)`; nothing is read before it is asked for."""

    def __init__(self, rows: Rows, indices: Tensor) -> None:
        self.rows = rows
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Tensor) -> Any:
        return self.rows[self.indices[index]]


class RowWriter:
    """Writes batches `(B, ...)` into a folder; maps in channels_last stay in that order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0
        self._meta: dict[str, Any] = {}

    def __enter__(self) -> "RowWriter":
        self._file = (self.folder / DATA).open("wb")
        return self

    def append(self, batch: Tensor, indices: Tensor | None = None) -> None:
        """Write a batch behind the others, or its rows to their `indices` `(B,)`; in the end every index is filled."""
        rows = batch.detach().cpu()
        channels_last = rows.ndim == 4 and not rows.is_contiguous()
        rows = (rows.permute(0, 2, 3, 1) if channels_last else rows).contiguous()
        content = rows.flatten().view(torch.uint8).view(len(rows), -1).numpy()
        first = self._count
        for begin, end, index in runs(torch.arange(first, first + len(rows)) if indices is None else indices):
            self._file.seek(index * content.shape[1])
            self._file.write(content[begin:end].data)
        self._count += len(rows)
        self._meta = {
            "dtype": name_of(rows.dtype),
            "channels_last": channels_last,
            "shape": [self._count, *rows.shape[1:]],
        }

    def __exit__(self, *_: object) -> None:
        self._file.close()
        (self.folder / META).write_text(json.dumps(self._meta))


def runs(indices: Tensor) -> Iterator[tuple[int, int, int]]:
    """(begin, end, first index) of each part of `indices` `(B,)` that counts up by one."""
    begins = [0, *((indices.diff() != 1).nonzero().flatten() + 1).tolist()]
    yield from zip(begins, [*begins[1:], len(indices)], indices[begins].tolist(), strict=True)


def write_rows(folder: Path, batches: Iterable[Tensor]) -> None:
    """Write all batches `(B, ...)` into a folder."""
    with RowWriter(folder) as writer:
        for batch in batches:
            writer.append(batch)
