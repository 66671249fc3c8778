"""Chunks as LitData's `optimize` writes them, read as shards: a sample's fields stand for files, names for endings.

A chunk is the number N of its samples, N + 1 offsets in it, all uint32, and the samples: the size of each field, uint32
too, and then what the fields hold; or rows of Arrow behind the offsets. The format is read here and not by LitData,
which has its own order and its own cache.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import IO, Any

AS_STORED = ("bytes", "jpeg", "file", "str", "text", "image", "audio")  # fields that hold a file, or UTF-8
ENDING = ".bin"
ARROW = b"LDARW01\0"  # the last bytes of a chunk whose samples are rows of Arrow


class Unreadable(Exception):
    """What of a folder of chunks is not read here."""


def is_index(content: Any) -> bool:
    """Whether an `index.json` is that of chunks."""
    return isinstance(content, Mapping) and "chunks" in content


def chunk_sizes(index: Mapping[str, Any]) -> dict[str, int]:
    """Number of samples of each chunk."""
    return {chunk["filename"]: int(chunk["chunk_size"]) for chunk in index["chunks"]}


def fields_of(content: bytes | None) -> dict[str, str]:
    """Name and kind of the fields of each sample, from `index.json`. Raises Unreadable."""
    if content is None or not is_index(index := json.loads(content)):
        raise Unreadable("its folder has no index.json of LitData's")
    config = index["config"]
    if used := [key for key in ("compression", "encryption") if config.get(key)]:
        raise Unreadable(f"chunks with {used[0]} are not read; write them without")
    kinds, spec = config["data_format"], json.loads(config.get("data_spec") or "null")
    tree = spec[1] if isinstance(spec, list) else {}
    names = json.loads(tree["context"]) if tree.get("type") == "builtins.dict" else map(str, range(len(kinds)))
    if len(names := list(names)) != len(kinds):
        raise Unreadable("its samples hold lists or dictionaries in dictionaries; make each a flat dictionary")
    return dict(zip(names, kinds, strict=True))


def samples_of(
    file: IO[bytes], fields: Mapping[str, str], start: int, *, content: bool = True
) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Number and fields by lower-case name of a chunk's samples from the `start`-th on, without `content` none.

    Raises ValueError for a damaged chunk.
    """
    (number,) = struct.unpack("<I", read(file, 4))
    offsets = struct.unpack(f"<{number + 1}I", read(file, 4 * (number + 1)))
    if not content:
        yield from ((sample, {}) for sample in range(start, number))
        return
    if number and offsets[0] == offsets[-1]:
        for sample, row in enumerate(islice(arrow_rows(file.read()), start, None), start):
            yield sample, {name.lower(): as_file(value) for name, value in row.items()}
        return
    file.seek(offsets[min(start, number)])
    for sample in range(start, number):
        stored = read(file, offsets[sample + 1] - offsets[sample])
        begin, found = 4 * len(fields), {}
        for (name, kind), size in zip(fields.items(), struct.unpack_from(f"<{len(fields)}I", stored), strict=True):
            found[name.lower()] = plain(stored[begin : begin + size], kind)
            begin += size
        yield sample, found


def arrow_rows(content: bytes) -> Iterator[dict[str, Any]]:
    """Samples that stand behind the offsets as a file of Arrow, its size and a mark, as newer LitData writes them."""
    import pyarrow

    size = struct.unpack("<I", content[-12:-8])[0] if content.endswith(ARROW) else 0
    if not 0 < size <= len(content) - 12:
        raise ValueError("it ends before its rows do")
    rows = pyarrow.ipc.open_file(pyarrow.py_buffer(content[-12 - size : -12]))
    for batch in range(rows.num_record_batches):
        yield from rows.get_batch(batch).to_pylist()


def as_file(value: Any) -> bytes:
    """What a file with a value of a row would hold; nothing of a value that is none."""
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value).encode()
    return value if isinstance(value, bytes) else b""


def plain(content: bytes, kind: str) -> bytes:
    """What a file with a field's value would hold; nothing of a kind that is none."""
    if kind == "int":
        return str(struct.unpack("<q", content)[0]).encode()
    return content if kind.partition(":")[0] in AS_STORED else b""


def read(file: IO[bytes], size: int) -> bytes:
    """So many bytes; ValueError where the file ends before."""
    content = file.read(size)
    if len(content) < size:
        raise ValueError("it ends in the middle of a sample")
    return content
