"""BatchNorm with separate running statistics for each domain (`bn=domain_specific`)."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

BUFFERS = ("running_mean", "running_var")


def batchnorms(module: nn.Module) -> list[_BatchNorm]:
    """Every BatchNorm inside `module` that keeps running statistics."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def add_source_statistics(module: nn.Module) -> None:
    """Give every BatchNorm a second set of statistics; the first keeps its names, so plain checkpoints load.

    Affine parameters are shared by the domains.
    """
    for norm in batchnorms(module):
        for name in BUFFERS:
            norm.register_buffer(f"source_{name}", getattr(norm, name).clone())


@contextmanager
def source_statistics(module: nn.Module) -> Iterator[None]:
    """Use and update the source's statistics inside the block, where there are some."""
    norms = [norm for norm in batchnorms(module) if hasattr(norm, "source_running_mean")]
    _swap(norms)
    try:
        yield
    finally:
        _swap(norms)


def _swap(norms: list[_BatchNorm]) -> None:
    for norm in norms:
        for name in BUFFERS:
            norm._buffers[name], norm._buffers[f"source_{name}"] = (
                norm._buffers[f"source_{name}"],
                norm._buffers[name],
            )
