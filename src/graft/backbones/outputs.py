"""What modules put out while a network runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def kept_outputs(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Inside the block, the outputs of the named modules go into the dict that it gives, with their graph."""
    found: dict[str, Any] = {}

    def keep(name: str, output: Any) -> None:
        found[name] = output

    handles = [
        network.get_submodule(name).register_forward_hook(lambda _m, _x, output, name=name: keep(name, output))
        for name in names
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
