"""Ctrl-C: the first one ends training cleanly with what was reached saved, the second one stops at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.exceptions import SIGTERMException

from graft.errors import Interrupted

MESSAGE = b"\nCtrl-C: finishing what is under way and saving. Press it again to stop at once.\n"
STDERR = 2
AGREE_EVERY = 16  # optimizer steps between two questions to the other processes whether one of them was interrupted


class Interrupt(Callback):
    """Turns the first SIGINT of a fit into a saved checkpoint and `Interrupted`, the second into KeyboardInterrupt.

    It saves `<trainer.default_root_dir>/checkpoints/last.ckpt` after the running batch; where batches are accumulated
    after the optimizer step, as gradients are in no checkpoint. On an epoch's last batch it waits for the validation
    that belongs to the epoch, so that a resumed run misses none.
    """

    def __init__(self) -> None:
        self.requested = False
        self._saved: Path | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over SIGINT; this late, because Lightning has noted the previous handler by now and restores it."""
        self.requested = False
        self._saved = None
        if _in_main_thread():
            self._previous = signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        os.write(STDERR, MESSAGE)  # not print(): this may interrupt a print(), which cannot be entered twice

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop inside an epoch."""
        steps, rest = divmod(batch_idx + 1, trainer.accumulate_grad_batches)
        if rest or trainer.is_last_batch:
            return
        alone = trainer.world_size == 1
        if self.requested if alone else steps % AGREE_EVERY == 1 and self._anyone(trainer):
            self._save(trainer)
            self._raise_if_saved(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save where Lightning can go on from between two epochs; the epoch's metrics are still to be logged."""
        if self._anyone(trainer):
            self._save(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop between two epochs."""
        self._raise_if_saved(trainer)

    def _anyone(self, trainer: pl.Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self.requested, all=False)

    def _save(self, trainer: pl.Trainer) -> None:
        self._saved = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        trainer.save_checkpoint(self._saved)

    def _raise_if_saved(self, trainer: pl.Trainer) -> None:
        if self._saved is not None:
            epochs: Any = trainer.fit_loop.epoch_progress.current
            done = f"{epochs.processed} of {trainer.max_epochs} epochs done"
            raise Interrupted(f"Interrupted after step {trainer.global_step}, {done}. Saved {self._saved}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give SIGINT back, and stop what would come after a fit whose last epoch was interrupted."""
        self._restore()
        self._raise_if_saved(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give SIGINT back, whatever ended the fit."""
        self._restore()

    def _restore(self) -> None:
        if _in_main_thread() and hasattr(self, "_previous"):
            signal.signal(signal.SIGINT, self._previous)
            del self._previous


@contextmanager
def keyboard_interrupts() -> Iterator[None]:
    """Let a KeyboardInterrupt out of the Trainer calls in the block, and a SIGTERM as `Interrupted`.

    Lightning turns both into SystemExit, which reads as a failed job, and leaves SIGINT ignored when it came early.
    """
    previous = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SIGTERMException:
        raise Interrupted("Terminated (SIGTERM). The checkpoint of the last finished epoch is kept.") from None
    except SystemExit as exit_:
        if isinstance(exit_.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if _in_main_thread():
            signal.signal(signal.SIGINT, previous)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
