"""Graft itself: the config that a user writes, through `graft.run.train`."""

from typing import Any

import pytorch_lightning as pl
from hydra import compose, initialize_config_dir
from pytorch_lightning.callbacks import Callback

from benchmarks.commands import CONF, ROOT
from benchmarks.turns import Plan, Turn
from graft.cli.hydra_versions import VERSION_BASE
from graft.cli.job import quoted
from graft.config import plain
from graft.run import train

_turn: Turn | None = None  # of this process: Hydra builds the callbacks, and a config cannot hold a connection


def fit(plan: Plan, turn: Turn) -> None:
    """Graft's run with metrics.csv, the W&B offline logger, metrics and the progress bar.

    The validation, which a bare loop does not have, comes after the last epoch and is not timed. With it goes the
    checkpoint; selection=last leaves only the one of the last epoch, which Lightning writes at the end of every epoch.
    """
    run(plan, turn, "callbacks=turns")


def load(plan: Plan, turn: Turn) -> None:
    """Only the loading of Graft's run."""
    run(plan, turn, "callbacks=loading")


def run(plan: Plan, turn: Turn, *more: str) -> None:
    """Graft's run with the plan's overrides, and with `turn` within reach of its callbacks."""
    global _turn
    _turn = turn
    overrides = [
        f"hydra.searchpath=[{quoted(CONF.as_uri())}]",
        "allow=[benchmarks]",  # whose data and callbacks it names
        f"++paths.run_dir={quoted(plan.folder / 'run')}",
        f"++paths.cache_dir={quoted(plan.folder / 'cache')}",
        f"paths.root={quoted(ROOT)}",
        f"training.epochs={plan.epochs}",
        f"training.validate_every_epochs={plan.epochs}",
        f"training.threads={plan.threads}",
        f"data.batch_size={plan.batch_size}",
        f"optimizer.lr={plan.lr}",
        "scheduler=constant",
        "selection=last",
        *plan.overrides,
        *more,
    ]
    with initialize_config_dir(str(ROOT / "conf"), **VERSION_BASE):
        config = compose("train", overrides=overrides)
    train(plain(config))


class Turns(Callback):
    """Takes a turn at the begin of each epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the clock of the epoch before and wait."""
        _turn.begin()


class Loading(Callback):
    """Goes through the run's own training loader in place of training, a turn an epoch."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load epoch after epoch until no turn is left."""
        loader = trainer.datamodule.train_dataloader()["target"]
        for epoch in range(trainer.max_epochs):
            _turn.begin()
            loader.batch_sampler.set_epoch(epoch)
            exhaust(loader)


def exhaust(batches: Any) -> None:
    """Take every batch and do nothing with it."""
    for _ in batches:
        pass
