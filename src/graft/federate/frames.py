"""What goes between Graft and Flower on one machine: a head, which is JSON, and the bytes of the tensors it names."""

import json
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

Head = Mapping[str, Any]


def write(connection: Connection, head: Head, message: Mapping[str, Tensor]) -> None:
    """Send a head and tensors; in the head, `tensors` says what they are."""
    named = [(name, str(value.dtype).removeprefix("torch."), list(value.shape)) for name, value in message.items()]
    connection.send_bytes(json.dumps({**head, "tensors": named}).encode())
    for value in message.values():
        connection.send_bytes(bytes_of(value))


def read(connection: Connection) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A head and its tensors, on the CPU; EOFError where the other side has closed."""
    head = json.loads(connection.recv_bytes())
    found = {name: tensor_of(connection.recv_bytes(), dtype, shape) for name, dtype, shape in head.pop("tensors")}
    return head, found


def bytes_of(value: Tensor) -> bytes:
    """The bytes of a tensor, in C order and in this machine's byte order."""
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def tensor_of(content: bytes, dtype: str, shape: list[int]) -> Tensor:
    """The tensor of these bytes; ValueError where they are not as many as it has."""
    kind = getattr(torch, dtype)
    if not isinstance(kind, torch.dtype):
        raise ValueError(f"{dtype} is no dtype")
    value = torch.frombuffer(bytearray(content), dtype=kind) if content else torch.empty(0, dtype=kind)
    return value.reshape(shape)
