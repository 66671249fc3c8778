"""Fits of Graft that take turns step by step, each in a thread of its own.

What counts is the thread's CPU time of a step, so that other work on the machine matters little; what loading the next
batch takes is kept apart.
"""

import threading
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra import compose, initialize_config_dir
from pytorch_lightning.callbacks import Callback

from benchmarks.commands import CONF, ROOT
from graft.cli.hydra_versions import VERSION_BASE
from graft.cli.job import quoted
from graft.config import plain
from graft.experiment import Experiment, assemble, prepare
from graft.inputs.base import Batch
from graft.pretrain import pretrain
from graft.training.fitting import Fitting

WARM_UP = 2  # steps of each fit that do not count


class Steps(Callback):
    """Waits before each step of a fit until its turn comes; keeps the step's CPU seconds, its batch and its loss."""

    def __init__(self) -> None:
        self.go, self.ready = threading.Semaphore(0), threading.Semaphore(0)
        self.seconds: list[float] = []
        self.between: list[float] = []  # from a step's end to the next one's begin, within an epoch
        self.batches: list[Batch] = []  # the coming step's included
        self.losses: list[float] = []
        self.ended: float | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What lies behind is the end of an epoch, not the loading of a batch."""
        self.ended = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, place: int) -> None:
        """Hand the turn over and wait for the next one."""
        if self.ended is not None:
            self.between.append(time.thread_time() - self.ended)
        self.batches.append(batch)
        self.ready.release()
        self.go.acquire()
        self.started = time.thread_time()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, place: int
    ) -> None:
        """Note the step."""
        self.ended = time.thread_time()
        self.seconds.append(self.ended - self.started)
        self.losses.append(float(outputs["loss"]))

    def step(self) -> float:
        """CPU seconds of one more step."""
        self.go.release()
        self.ready.acquire()
        return self.seconds[-1]


def experiment_of(folder: Path, cache: Path, file: Path, overrides: list[str]) -> Experiment:
    """A fit on stored images for both domains, up to where it would begin; `folder` is the run's own."""
    folder.mkdir()
    everywhere = [
        *(f"hydra.searchpath=[{quoted(CONF.as_uri())}]", "allow=[benchmarks]", f"paths.root={quoted(ROOT)}"),
        *(f"++paths.run_dir={quoted(folder)}", f"++paths.cache_dir={quoted(cache)}"),
        *("data=mnist", "data/domain@data.target=stored", f"data.target.file={quoted(file)}"),
        *("selection=last", "trainer=cpu", "training.threads=1", "report.proxy_a_distance=false"),
        *("baselines=none", "callbacks.progress=null", "logger=csv"),
    ]
    with initialize_config_dir(str(ROOT / "conf"), **VERSION_BASE):
        experiment = assemble(plain(compose("train", overrides=everywhere + overrides)))
    pretrain(experiment)
    prepare(experiment)
    return experiment


def begin(experiment: Experiment) -> tuple[Steps, threading.Thread]:
    """A fit in a thread of its own, which waits for its first turn."""
    fitting, steps = Fitting(experiment, [], in_sweep=True), Steps()
    trainer: Any = fitting.trainer
    trainer.callbacks.append(steps)

    def fit() -> None:
        try:
            trainer.fit(experiment.module, experiment.data)
        finally:
            steps.ready.release()  # also where it fails: the next turn finds no step

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    steps.ready.acquire()
    return steps, thread
