"""A step with each adaptation term over a step on the source alone: LeNet, digits of 28 px, batches of 64, one thread.

Every fit is one of Graft's, in a thread of its own, and all take turns step by step. What counts is the thread's CPU
time of a step, without loading its batches, so that other work on the machine matters little. Most terms draw a batch
of the target beside the source's. AdaBN and TENT need BatchNorm, which LeNet has not.
"""

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra import compose, initialize_config_dir
from pytorch_lightning.callbacks import Callback

from benchmarks import images
from benchmarks.commands import CONF, ROOT
from benchmarks.measure import interleave, ratios
from benchmarks.row import Measured, Row, Settings
from graft.cli.hydra_versions import VERSION_BASE
from graft.cli.job import quoted
from graft.config import plain
from graft.experiment import Experiment, assemble, prepare
from graft.pretrain import pretrain
from graft.training.fitting import Fitting

BATCH, WARM_UP = 64, 2  # samples of a domain; steps of each fit that do not count
JOINT = ("strategy=scratch", "objective.alpha=1")
ON_TRAINED = ("backbone.weights=source", "pretrain.epochs=1", "strategy=full", "objective.alpha=null")
TERMS = {
    **dict.fromkeys(("coral", "dan", "jan", "dann", "cdan", "mdd", "mcd", "afn", "bsp", "mcc"), JOINT),
    "adda": ON_TRAINED,
    **dict.fromkeys(("information_maximisation", "shot", "self_training", "fixmatch", "mean_teacher"), JOINT),
}
SOURCE = "source"


class Steps(Callback):
    """Waits before each step of a fit until its turn comes, and keeps the step's CPU seconds."""

    def __init__(self) -> None:
        self.go, self.ready = threading.Semaphore(0), threading.Semaphore(0)
        self.seconds: list[float] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, place: int) -> None:
        """Hand the turn over and wait for the next one."""
        self.ready.release()
        self.go.acquire()
        self.started = time.thread_time()

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Note the step."""
        self.seconds.append(time.thread_time() - self.started)

    def step(self) -> float:
        """CPU seconds of one more step."""
        self.go.release()
        self.ready.acquire()
        return self.seconds[-1]


def experiment_of(name: str, file: Path, folder: Path, steps: int) -> Experiment:
    """A fit of some steps with a term, or on the source alone, up to where it would begin."""
    (folder / name).mkdir()
    overrides = [
        *(f"hydra.searchpath=[{quoted(CONF.as_uri())}]", "allow=[benchmarks]", f"paths.root={quoted(ROOT)}"),
        *(f"++paths.run_dir={quoted(folder / name)}", f"++paths.cache_dir={quoted(folder / 'cache')}"),
        *("data=mnist", "data/domain@data.source=stored", "data/domain@data.target=stored"),
        *(f"data.{side}.file={quoted(file)}" for side in ("source", "target")),
        *("data.target_setting=unsupervised", "backbone=lenet", "optimizer=sgd", "selection=last", "trainer=cpu"),
        *(f"data.batch_size={BATCH}", f"data.epoch={steps}", "training.epochs=1", "training.threads=1"),
        *("report.proxy_a_distance=false", "baselines=none", "callbacks.progress=null", "logger=csv"),
        *((*TERMS[name], f"term=[{name}]") if name in TERMS else JOINT),
    ]
    with initialize_config_dir(str(ROOT / "conf"), **VERSION_BASE):
        experiment = assemble(plain(compose("train", overrides=overrides)))
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


def terms_over_source(settings: Settings) -> Measured:
    """Steps of all terms in turns, each over the source's of the same round."""
    file, count = settings.folder / "digits.pt", WARM_UP + settings.repeats
    name = images.digits(file, BATCH * settings.pick(8, 2))
    contestants = {
        who: begin(experiment_of(who, file, settings.folder, count))
        for who in (SOURCE, *settings.pick([*TERMS], ["dann"]))
    }
    works: dict[str, Callable[[], float]] = {who: steps.step for who, (steps, _) in contestants.items()}
    times = {who: taken[WARM_UP:] for who, taken in interleave(works, count).items()}
    for _, thread in contestants.values():
        thread.join()
    theirs = times.pop(SOURCE)
    over = {term: ratios(taken, theirs) for term, taken in times.items()}
    note = f"on {name}; a step on the source alone {1000 * statistics.median(theirs):.1f} ms of CPU"
    beside = {f"step with term={term}": values for term, values in over.items() if term != "dann"}
    return Measured(over["dann"], beside, [note], {"seconds": {SOURCE: theirs, **times}})


ROWS = [Row("terms", "step with term=dann", "source only; the others below", None, terms_over_source, repeats=24)]
