"""Early stopping: a training ends where validation has not improved for a while (`training.patience`)."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping

from graft.module import TransferModule


class Patience(EarlyStopping):
    """Lightning's, on the metric that selects: in the last phase alone, and the same after a kill.

    Earlier phases are part of what a strategy is: gradual unfreezing that stops while parts are frozen is another one.
    `ready` says whether what is validated can be selected yet, as it cannot before an average begins.
    """

    def __init__(self, monitor: str, higher_is_better: bool, patience: int, ready: Callable[[], bool]) -> None:
        mode = "max" if higher_is_better else "min"
        super().__init__(monitor, patience=patience, mode=mode, check_finite=False, check_on_train_epoch_end=False)
        self.ready = ready

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Train no further where a run that was killed had come to its end."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count where the last phase trains."""
        assert isinstance(pl_module, TransferModule)
        if trainer.state.fn != "fit" or trainer.sanity_checking or not self.ready():
            return
        if not pl_module.later_phases(pl_module.phase(trainer.current_epoch)):
            super().on_validation_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting, with this run's patience."""
        super().load_state_dict({**state_dict, "patience": self.patience})
