"""Ctrl-C, SIGTERM and SIGUSR1: training ends cleanly with what was reached saved; a second Ctrl-C stops at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.exceptions import SIGTERMException

from graft import signals
from graft.errors import Interrupted

AGREE_EVERY = 16  # optimizer steps between two questions to the other processes whether one of them was interrupted


class Interrupt(Callback):
    """Turns a fit's first SIGINT, SIGTERM or SIGUSR1 into a saved checkpoint and `Interrupted`.

    A second SIGINT becomes a KeyboardInterrupt; further ones of the others are ignored.

    It saves `<trainer.default_root_dir>/checkpoints/last.ckpt` after the running batch; where batches are accumulated
    after the optimizer step, as gradients are in no checkpoint. On an epoch's last batch it waits for the validation
    that belongs to the epoch, so that a resumed run misses none.
    """

    def __init__(self) -> None:
        self._signum = 0  # that asked to stop; 0: none did
        self._saved: Path | None = None
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals over; this late, because Lightning has noted the previous handlers by now."""
        self._signum = 0
        self._saved = None
        if signals.in_main_thread():
            self._previous = signals.take_over(self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._signum and signum == signal.SIGINT:
            raise KeyboardInterrupt
        if not self._signum:
            self._signum = signum
            if signum != signal.SIGINT:
                signals.STATE.asked = signum
            signals.say(signum, "finishing what is under way and saving.")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop inside an epoch."""
        steps, rest = divmod(batch_idx + 1, trainer.accumulate_grad_batches)
        if rest or trainer.is_last_batch:
            return
        alone = trainer.world_size == 1
        if self._signum if alone else steps % AGREE_EVERY == 1 and self._agreed(trainer):
            self._save(trainer)
            self._raise_if_saved(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save where Lightning can go on from between two epochs; the epoch's metrics are still to be logged."""
        if self._agreed(trainer):
            self._save(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop between two epochs."""
        self._raise_if_saved(trainer)

    def _agreed(self, trainer: pl.Trainer) -> int:
        """The signal that any of the processes got."""
        mine: Any = torch.tensor(self._signum, device=trainer.strategy.root_device)
        self._signum = int(trainer.strategy.reduce(mine, reduce_op="max"))
        return self._signum

    def _save(self, trainer: pl.Trainer) -> None:
        self._saved = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        trainer.save_checkpoint(self._saved)

    def _raise_if_saved(self, trainer: pl.Trainer) -> None:
        if self._saved is not None:
            epochs: Any = trainer.fit_loop.epoch_progress.current
            done = f"{epochs.processed} of {trainer.max_epochs} epochs done"
            how = signals.how_stopped(self._signum)
            raise Interrupted(f"{how} after step {trainer.global_step}, {done}. Saved {self._saved}", self._signum)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the signals back, and stop what would come after a fit whose last epoch was interrupted."""
        self._restore()
        self._raise_if_saved(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the signals back, whatever ended the fit."""
        self._restore()

    def _restore(self) -> None:
        if signals.in_main_thread():
            signals.give_back(self._previous)
            self._previous = {}


@contextmanager
def keyboard_interrupts() -> Iterator[None]:
    """Let what a signal raises out of the Trainer calls in the block: KeyboardInterrupt, or `Interrupted`.

    Lightning turns them into SystemExit, which reads as a failed job, and leaves SIGINT ignored when it came early.
    """
    try:
        with signals.restored():
            yield
    except SIGTERMException:
        text = f"{signals.how_stopped(signal.SIGTERM)}. The checkpoint of the last finished epoch is kept."
        raise Interrupted(text, signal.SIGTERM) from None
    except SystemExit as exit_:
        if isinstance(exit_.__context__, KeyboardInterrupt):
            raise exit_.__context__ from None
        raise
