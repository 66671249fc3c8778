"""What a fit leaves on disk: the best weights, and where to go on from."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from graft.module import TransferModule
from graft.selection.base import of_validation, rank
from graft.training.lightning import epochs_of

LARGEST_SHARE = 1 / 20  # of the time that may go into writing
SHORTEST_S = 2.0  # between two checkpoints


class Checkpoints(Checkpoint):
    """`best.ckpt`, the weights with the best validation metric, and `last.ckpt`, with all that resuming needs.

    They are written when an epoch ends, but not so often that it takes more than a twentieth of the time: of long
    epochs each, of short ones those of the last seconds may be lost in a kill. Until then the best weights wait in
    memory; nothing is lost where the fit ends, is interrupted or fails. `ready` says whether there is anything to save.

    The `top_k` best epochs, for a soup of them, wait in memory to the end and are part of `last.ckpt`: in files of
    their own, as Lightning's ModelCheckpoint has them, they would be of a later time than the state that a killed run
    goes on from.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str | None,
        higher_is_better: bool = True,
        ready: Callable[[], bool] = lambda: True,
        keep_last: bool = True,
        run_id: str | None = None,
        top_k: int = 0,
        beside: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        """Without a `monitor` there is no best; with `keep_last` the end of the fit is saved too.

        `run_id` goes into both files, so that neither is taken for another run's; `beside` gives what else belongs to
        weights, with its key.
        """
        self.best_file, self.last_file = folder / "best.ckpt", folder / "last.ckpt"
        self.monitor = monitor
        self.higher_is_better = higher_is_better
        self.ready = ready
        self.keep_last = keep_last
        self.run_id = run_id
        self.top_k = top_k
        self.beside = beside
        self.top: list[dict[str, Any]] = []  # contents of checkpoints of weights alone, the best first
        self._best: float | None = None
        self._waiting: dict[str, Any] | None = None  # the best weights since the last writing

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        assert isinstance(pl_module, TransferModule)
        self._backbone_trains = pl_module.backbone_trains(epochs_of(trainer))
        self._written_at, self._took = time.monotonic(), 0.0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights where they are the best so far."""
        assert isinstance(pl_module, TransferModule)
        if trainer.state.fn != "fit" or trainer.sanity_checking or self.monitor is None or not self.ready():
            return
        value = float(trainer.callback_metrics[self.monitor])
        is_best = self._best is None or rank(value, self.higher_is_better) > rank(self._best, self.higher_is_better)
        if is_best:
            self._best = value
            self._waiting = self._weights(trainer, pl_module)
        if self._enters_top(value):
            self._keep_top(self._waiting if is_best and self._waiting else self._weights(trainer, pl_module))

    def _enters_top(self, value: float) -> bool:
        """Whether an epoch is one of the best that are kept; asked before its weights are copied."""
        if len(self.top) < self.top_k:
            return True
        if not self.top:
            return False
        return rank(value, self.higher_is_better) > rank(self.top[-1]["metrics"][self.monitor], self.higher_is_better)

    def _keep_top(self, content: dict[str, Any]) -> None:
        """Put an epoch in its place, of equally good ones behind the earlier, and leave out what is one too many."""

        def worth(one: dict[str, Any]) -> float:
            return rank(one["metrics"][self.monitor], self.higher_is_better)

        self.top = sorted([*self.top, content], key=worth, reverse=True)[: self.top_k]

    def _weights(self, trainer: pl.Trainer, module: TransferModule) -> dict[str, Any]:
        """The content of a checkpoint of weights alone, copied where they may still change."""

        def kept(name: str, tensor: Tensor) -> Tensor:
            stays = name.startswith("backbone.") and not self._backbone_trains
            return tensor if stays else tensor.detach().to("cpu", copy=True)

        state = trainer.strategy.lightning_module_state_dict()
        state = {name: kept(name, tensor) for name, tensor in state.items()}
        metrics = of_validation(trainer.callback_metrics)
        return self.content(module, state, trainer.current_epoch, trainer.global_step, metrics)

    def content(
        self, module: TransferModule, state: dict[str, Tensor], epoch: int, step: int, metrics: dict[str, float]
    ) -> dict[str, Any]:
        """The content of a checkpoint of weights alone, with the metrics of their validation."""
        return {
            "epoch": epoch,
            "global_step": step,
            "pytorch-lightning_version": pl.__version__,
            "state_dict": state,
            "config": module.config,
            "metrics": metrics,
            "run_id": self.run_id,
            **self.beside(),
        }

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write where it is time, or the last one."""
        ends = trainer.should_stop or trainer.current_epoch + 1 >= epochs_of(trainer)
        waited = time.monotonic() - self._written_at
        due = waited >= max(SHORTEST_S, self._took / LARGEST_SHARE)
        if trainer.world_size > 1:
            due = trainer.strategy.broadcast(due)  # all processes write together
        if (ends and self.keep_last) or (due and not ends):
            started = time.monotonic()
            trainer.save_checkpoint(self.last_file)
            self._written_at = time.monotonic()
            self._took = self._written_at - started

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """A state to resume from knows the best value so far, so that its weights have to be on disk before."""
        checkpoint["run_id"] = self.run_id
        self._write_best(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave nothing in memory."""
        self._write_best(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Lose nothing that was reached."""
        self._write_best(trainer)

    def _write_best(self, trainer: pl.Trainer) -> None:
        if self._waiting is not None:
            trainer.strategy.save_checkpoint(self._waiting, self.best_file)
            self._waiting = None

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and the best epochs where they are kept."""
        return {"best": self._best} | ({"top": self.top} if self.top_k else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from them."""
        self._best = state_dict["best"]
        self.top = state_dict.get("top", [])[: self.top_k]
