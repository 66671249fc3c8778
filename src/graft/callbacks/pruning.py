"""A trial that is behind the others of its study ends early."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from graft.errors import Pruned


class Pruning(Callback):
    """Reports the metric that selects after every validation, and raises Pruned where the trial is given up.

    `report` takes the epoch, from 1, and the value, and says whether to give up; `ready` says whether what is validated
    can be selected yet.
    """

    def __init__(self, monitor: str, report: Callable[[int, float], bool], ready: Callable[[], bool]) -> None:
        self.monitor = monitor
        self.report = report
        self.ready = ready

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report, and give up where that is the answer; the last epoch is done in any case."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or not self.ready():
            return
        epoch, value = trainer.current_epoch + 1, float(trainer.callback_metrics[self.monitor])
        if self.report(epoch, value) and epoch < (trainer.max_epochs or 0):
            raise Pruned(f"Pruned after epoch {epoch} of {trainer.max_epochs}: {self.monitor} {value:.4f} is behind.")

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the study knows what was reported."""
        return {}
