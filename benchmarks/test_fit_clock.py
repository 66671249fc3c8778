"""What the clock of a fit writes."""

import json
import logging
import time

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.fit_clock import FILE, FitClock


class Works(pl.LightningModule):
    """A fit of one step that computes for a while, after a wait that costs no CPU time."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def train_dataloader(self):
        return DataLoader(torch.ones(1, 1))

    def training_step(self, batch, batch_idx):
        time.sleep(0.3)
        began = time.process_time()
        while time.process_time() - began < 0.1:
            pass
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_fit_leaves_its_cpu_seconds_in_the_runs_folder(tmp_path):
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        default_root_dir=tmp_path,
        callbacks=[FitClock()],
        enable_model_summary=False,
        **options,
    )
    began = time.process_time()
    trainer.fit(Works())
    assert 0.1 <= json.loads((tmp_path / FILE).read_text())["cpu_s"] <= time.process_time() - began
