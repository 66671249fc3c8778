"""The CPU time of a run's fit, which other work on the machine stretches less than its wall time."""

import json
import time
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

FILE = "fit_clock.json"


class FitClock(Callback):
    """Writes CPU seconds of this process, all its threads, between a fit's begin and end into the run's folder."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.began = time.process_time()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what it says."""
        seconds = time.process_time() - self.began
        (Path(trainer.default_root_dir) / FILE).write_text(json.dumps({"cpu_s": seconds}))
