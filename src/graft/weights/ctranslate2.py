"""Weights as CTranslate2 writes them, `model.bin`: a header, and name, shape and bytes of every tensor."""

import struct
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from graft.errors import GraftError

VERSIONS = range(4, 7)  # of the format, in which a tensor's type stands before its bytes
FLOATS = {0: torch.float32, 4: torch.float16, 5: torch.bfloat16}
INTEGERS = {1: torch.int8, 2: torch.int16, 3: torch.int32}
LONGEST_NAME = 64  # of the model's kind, which is at the beginning


def is_ctranslate2(start: bytes) -> bool:
    """Whether a file begins so: the format's version, then a name that ends with a zero, such as WhisperSpec."""
    if len(start) < 8 or int.from_bytes(start[:4], "little") not in VERSIONS:
        return False
    length = int.from_bytes(start[4:6], "little")
    name = start[6 : 6 + length]
    return 1 < length <= LONGEST_NAME and name.endswith(b"\0") and name[:-1].isalnum()


def read_ctranslate2(content: bytearray, source: str) -> dict[str, Tensor]:
    """Tensors by their name in the file, numbers with a fraction as float32.

    Raises GraftError for what is not whole, and for weights in integers, which are rounded.
    """
    try:
        found = dict(tensors_in(Reader(content)))
    except (struct.error, ValueError, KeyError, UnicodeDecodeError) as error:
        raise GraftError(f"{source} is not a whole file of CTranslate2 ({error}). Get it again.") from error
    if rounded := [
        name for name, tensor in found.items() if name.endswith("weight") and tensor.dtype in (torch.int8, torch.int16)
    ]:
        raise GraftError(
            f"{source}: {rounded[0]} holds integers: the model was quantized, and training needs its own numbers. "
            "Take the float16 or float32 file: ct2-transformers-converter --quantization float16"
        )
    return found


class Reader:
    """Goes through the bytes of a file."""

    def __init__(self, content: bytearray) -> None:
        self.content = content
        self.place = 0

    def number(self, kind: str) -> int:
        """The next integer: B of one byte, H of two, I of four."""
        value: int = struct.unpack_from(f"<{kind}", self.content, self.place)[0]
        self.place += struct.calcsize(kind)
        return value

    def take(self, size: int) -> int:
        """Step over some bytes, and say where they begin; ValueError where they are not all there."""
        begin, self.place = self.place, self.place + size
        if self.place > len(self.content):
            raise ValueError(f"it ends after {len(self.content):,} bytes")
        return begin

    def text(self) -> str:
        """The next name; the zero at its end is left out."""
        size = self.number("H")
        begin = self.take(size)
        return self.content[begin : begin + size].rstrip(b"\0").decode()


def tensors_in(reader: Reader) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of all that the file holds; further names of the same ones, at its end, are left out."""
    reader.number("I"), reader.text(), reader.number("I")  # versions of format and model, around the model's kind
    for _ in range(reader.number("I")):
        name = reader.text()
        shape = [reader.number("I") for _ in range(reader.number("B"))]
        kind = {**FLOATS, **INTEGERS}[reader.number("B")]
        size = reader.number("I")
        begin = reader.take(size)
        options: dict[str, Any] = {"dtype": kind, "offset": begin, "count": size // kind.itemsize}
        tensor = torch.frombuffer(reader.content, **options).reshape(shape)
        yield name, tensor.float() if kind in FLOATS.values() else tensor.clone()
