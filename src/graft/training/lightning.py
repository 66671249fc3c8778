"""What a Lightning Trainer leaves untyped."""

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities import registry
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from pytorch_lightning.utilities.rank_zero import rank_zero_only

if TYPE_CHECKING:
    from graft.data.module import TransferDataModule


# Every Trainer looks through the files of all installed packages for callbacks of theirs: 12 ms, which once is enough.
cast(Any, registry).entry_points = functools.cache(entry_points)


def epochs_of(trainer: pl.Trainer) -> int:
    """Epochs of a fit, which graft.training.trainer always limits."""
    assert trainer.max_epochs is not None
    return trainer.max_epochs


def data_of(trainer: pl.Trainer) -> "TransferDataModule":
    """The data module, which Lightning attaches to the trainer when a fit or a test starts."""
    return cast(Any, trainer).datamodule


def count_as_done(trainer: pl.Trainer, epochs: int, steps: int, metrics: Mapping[str, float]) -> None:
    """Let a Trainer count epochs and optimizer steps that were done without it, and know how they were validated."""
    loop = cast(Any, trainer.fit_loop)
    loop.epoch_progress.current.processed = loop.epoch_progress.current.completed = epochs
    loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = steps
    loop.epoch_loop._batches_that_stepped = steps
    known = {name: torch.tensor(value) for name, value in metrics.items()}
    cast(Any, trainer)._logger_connector._callback_metrics.update(known)


def holds_all_weights(trainer: pl.Trainer) -> bool:
    """Whether each process has the whole network, rather than a shard of it."""
    return isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy)


def is_rank_zero() -> bool:
    """Whether this is the first of the processes."""
    return cast(Any, rank_zero_only).rank == 0  # Lightning sets it on the function


@contextmanager
def as_rank_zero() -> Iterator[None]:
    """Let this process log and save as the first one does: for a training that it does alone."""
    function = cast(Any, rank_zero_only)
    rank = function.rank
    function.rank = 0
    try:
        yield
    finally:
        function.rank = rank


def overfits(trainer: pl.Trainer) -> bool:
    """Whether the trainer repeats a few batches, its `overfit_batches`."""
    return bool(cast(Any, trainer).overfit_batches)
