"""What a Lightning Trainer leaves untyped."""

from typing import TYPE_CHECKING, Any, cast

import pytorch_lightning as pl
from pytorch_lightning.utilities.rank_zero import rank_zero_only

if TYPE_CHECKING:
    from graft.data.module import TransferDataModule


def epochs_of(trainer: pl.Trainer) -> int:
    """Epochs of a fit, which graft.training.trainer always limits."""
    assert trainer.max_epochs is not None
    return trainer.max_epochs


def data_of(trainer: pl.Trainer) -> "TransferDataModule":
    """The data module, which Lightning attaches to the trainer when a fit or a test starts."""
    return cast(Any, trainer).datamodule


def is_rank_zero() -> bool:
    """Whether this is the first of the processes."""
    return cast(Any, rank_zero_only).rank == 0  # Lightning sets it on the function


def overfits(trainer: pl.Trainer) -> bool:
    """Whether the trainer repeats a few batches, its `overfit_batches`."""
    return bool(cast(Any, trainer).overfit_batches)
