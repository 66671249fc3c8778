"""Learning rate and batch size, found by trying them on a copy: the run begins as if nothing had been tried.

The learning-rate range test (Smith, WACV 2017) trains a few steps while the rate rises exponentially, and reads a rate
off the curve of the loss by rules that fastai (Howard and Gugger, Information 2020) gave their names. Lightning's own
`Tuner.lr_find` sets one rate for all parameter groups, which would undo `rates`, so the test here is an ordinary fit
with a schedule that rises. The batch size comes from Lightning's `Tuner.scale_batch_size`.
"""

import copy
import csv
import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, cast

import numpy as np
import pytorch_lightning as pl
import torch
from annotated_types import Ge
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.tuner import Tuner
from pytorch_lightning.utilities.seed import isolate_rng

from graft.backbones.base import Backbone
from graft.build import build
from graft.callbacks.interrupt import keyboard_interrupts
from graft.compress.base import Compression
from graft.config.types import Count, Positive
from graft.data.module import TransferDataModule
from graft.errors import GraftError
from graft.experiment import Experiment
from graft.module import TransferModule
from graft.rates.layer_decay import LayerDecay
from graft.report import plots
from graft.runs.folder import LR_CURVE, LR_PICTURE
from graft.strategies.base import Phase, Strategy, batchnorm_parameters
from graft.strategies.batchnorm import trains_batchnorm
from graft.training.default_rates import Trained, default_rate
from graft.training.lightning import is_rank_zero
from graft.training.schedules import Point
from graft.training.trainer import build_trainer

SMOOTHING = 0.98  # weight of the past in the running average, as in fastai
DIVERGED = 4.0  # the test ends where the smoothed loss is this many times its minimum
LAST_POINTS = 5  # left out of the suggestions: the loss is on its way up
MIN_POINTS = 10  # below it nothing is left out
HALFWAY = 0.5  # progress during a test: what is scheduled over a run, such as alpha, stays as it is in the middle
TRIAL_STEPS = 3  # batches tried with each batch size
# Keys of the trainer that a trial does not take from the run: it has its own length, and its loss may become infinite.
TRIAL_TRAINER = {
    "limit_train_batches": 1.0,
    "limit_val_batches": 0,
    "max_time": None,
    "profiler": None,
    "detect_anomaly": False,
}


# Reading a rate off the curve; each takes rates (N,) and smoothed losses (N,)


def valley(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The middle of the longest valley: half of the way down the longest run of falling losses, gaps allowed."""
    lengths = [1] * len(losses)  # of the longest falling subsequence that ends here
    for i, loss in enumerate(losses):
        lengths[i] += max((lengths[j] for j in range(i) if losses[j] > loss), default=0)
    longest = max(lengths)
    start = lengths.index(longest) - longest
    return rates[max(0, start + longest // 3 + longest // 6)]


def steep(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Where the loss falls fastest over the logarithm of the rate."""
    return rates[int(np.argmin(np.diff(losses) / np.diff(np.log(rates))))]


def minimum(rates: Sequence[float], losses: Sequence[float]) -> float:
    """A tenth of the rate at which the loss was lowest."""
    return rates[int(np.argmin(losses))] / 10


SUGGESTIONS: dict[str, Callable[[Sequence[float], Sequence[float]], float]] = {
    "valley": valley,
    "steep": steep,
    "minimum": minimum,
}


class TuningSettings(TypedDict):
    """The keys of `tuning`."""

    low: Positive
    high: Positive
    steps: Annotated[int, Ge(10)]
    suggestion: Literal["valley", "steep", "minimum", "median"]
    max_batch_size: Count


def smooth(losses: Sequence[float]) -> list[float]:
    """Running average `(N,)`, corrected for its start at zero."""
    average, values = 0.0, []
    for step, loss in enumerate(losses, start=1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        values.append(average / (1 - SMOOTHING**step))
    return values


@dataclass(frozen=True)
class Curve:
    """What a range test saw: the loss of a step and the rate that the step was then made with."""

    rates: list[float]  # learning rate of the head
    losses: list[float]
    diverged: bool
    phase: int  # number, from 1, of the strategy's phase that was tested
    seconds: float

    @property
    def smoothed(self) -> list[float]:
        """The losses without most of their noise."""
        return smooth(self.losses)

    def suggestions(self) -> dict[str, float]:
        """Every rule's rate, with two digits: no more of it is known, and what is printed is what is used.

        Each rule is now and then off by orders of magnitude, upwards or downwards, the median of the three was not on
        any data that it was tried on. As in fastai, the first tenth of the steps and the last five are left out.
        """
        first, last = len(self.rates) // 10, len(self.rates) - LAST_POINTS
        if last - first < MIN_POINTS:
            first, last = 0, len(self.rates)
        rates, losses = self.rates[first:last], self.smoothed[first:last]
        found = {name: float(f"{rule(rates, losses):.2g}") for name, rule in SUGGESTIONS.items()}
        return found | {"median": statistics.median(found.values())}

    def write_csv(self, path: Path) -> None:
        """Columns `lr`, `loss`, `smoothed`."""
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["lr", "loss", "smoothed"])
            writer.writerows(zip(self.rates, self.losses, self.smoothed, strict=True))


# Trying


class Rise:
    """A schedule that rises exponentially from `low` to `high`; over a full rate of 1 its factors are the rates."""

    def __init__(self, low: float, high: float) -> None:
        self.low = low
        self.high = high

    def table(self, steps: int) -> list[Point]:
        """A point a step, the optimizer's own momentum."""
        return [Point(float(rate), None) for rate in np.geomspace(self.low, self.high, steps)]


class OnePhase(Strategy):
    """One phase of a strategy, the `number`-th from 1, for the whole run and with its rate factor."""

    def __init__(self, number: int, phase: Phase) -> None:
        super().__init__()
        self.number = number
        self.only = phase

    def phases(self, epochs: int, backbone: Backbone) -> list[Phase]:
        """The phase, under the run's schedule."""
        return [replace(self.only, epochs=epochs, restarts=True, schedule=None)]


class RecordLoss(Callback):
    """Keeps the loss of every optimizer step, and stops when it diverges."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.diverged = False
        self._loss = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the batch's loss to its step's, which Lightning has divided by the batches of a step; then judge."""
        self._loss += float(trainer.strategy.reduce(outputs["loss"], reduce_op="mean"))
        if trainer.global_step == len(self.losses):
            return
        loss, self._loss = self._loss, 0.0
        self.diverged = not math.isfinite(loss)
        if not self.diverged:
            self.losses.append(loss)
            smoothed = smooth(self.losses)
            self.diverged = smoothed[-1] - min(smoothed) > (DIVERGED - 1) * abs(min(smoothed))
        trainer.should_stop = self.diverged


def lr_range_test(config: Mapping[str, Any], module: TransferModule, data: TransferDataModule, folder: Path) -> Curve:
    """Loss at learning rates that rise from `tuning.low` to `tuning.high`, in the phase that trains most.

    The rates are the head's, `optimizer.lr`; in the phase everything else follows by its own factor, as in training.
    Raises GraftError where the loss is not finite from the start.
    """
    started, settings = time.perf_counter(), config["tuning"]
    trial, trial_data = copies(config, module, data, settings["steps"] * config["training"]["accumulate_batches"])
    trial_data.source_batch_size = data.batch_sizes["source"]
    trial_data.batch_size = min(data.batch_size, len(data.domains["target"].train))  # as large as training's own
    trial.schedule = Rise(settings["low"], settings["high"])
    record = RecordLoss()
    callbacks: list[Callback] = [record]
    if progress := config["callbacks"].get("progress"):
        bar = build(progress)
        bar.label = "learning-rate range test"
        callbacks.append(bar)
    trainer = build_trainer(config["trainer"] | TRIAL_TRAINER, config["training"], 1, folder, [], callbacks)
    with isolate_rng(), keyboard_interrupts(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered `nan` values")  # torchmetrics, where the loss diverges
        trainer.fit(trial, trial_data)
    if len(record.losses) < 2:
        raise GraftError(
            f"The learning-rate range test saw no finite loss: it begins with tuning.low={settings['low']}. "
            "Look at the data and the loss, or begin lower."
        )
    rates = [point.factor for point in trial.schedule.table(settings["steps"])]
    seconds = time.perf_counter() - started
    phase = cast(OnePhase, trial.strategy).number  # `copies` leaves one phase
    return Curve(rates[: len(record.losses)], record.losses, record.diverged, phase, seconds)


def describe(curve: Curve, suggestion: str) -> dict[str, Any]:
    """What a range test found, for results.json; `value` is the chosen suggestion's rate."""
    suggestions = curve.suggestions()
    return {
        "value": suggestions[suggestion],
        "suggestion": suggestion,
        "suggestions": suggestions,
        "phase": curve.phase,
        "steps": len(curve.losses),
        "diverged": curve.diverged,
        "seconds": curve.seconds,
    }


def find_batch_size(config: Mapping[str, Any], module: TransferModule, data: TransferDataModule, folder: Path) -> int:
    """The largest power of two that fits into memory, up to `batch_size_limit`, by trying a few steps with each.

    Raises GraftError where not even two samples fit.
    """
    limit = batch_size_limit(config, data)
    if limit < 2:
        return limit
    # One step more than is done: a scaler that came to an epoch's end would validate.
    trial, trial_data = copies(config, module, data, TRIAL_STEPS + 1)
    trial_data.batch_size = 2
    trial.schedule = Rise(config["tuning"]["low"], config["tuning"]["low"])  # the rate does not matter, but is needed
    trainer = build_trainer(config["trainer"] | TRIAL_TRAINER, config["training"], 1, folder, [], [])
    try:
        with isolate_rng(), keyboard_interrupts():
            # As many doublings as the limit allows: the scaler's own `max_val` comes back without having been tried.
            found = Tuner(trainer).scale_batch_size(
                trial,
                datamodule=trial_data,
                init_val=trial_data.batch_size,
                max_trials=limit.bit_length() - 1,
                steps_per_trial=TRIAL_STEPS,
            )
        return cast(int, found)  # None only where there is nothing to try
    except (RuntimeError, ValueError):
        if trial_data.batch_size >= 2:
            raise
        raise GraftError(
            "data.batch_size=auto: not even 2 samples fit into memory. Use smaller images (data.image_size), a smaller "
            "backbone, or trainer.precision=bf16-mixed."
        ) from None


def batch_size_limit(config: Mapping[str, Any], data: TransferDataModule) -> int:
    """The target's training samples, or `tuning.max_batch_size` where those are more."""
    return min(len(data.domains["target"].train), config["tuning"]["max_batch_size"])


def copies(
    config: Mapping[str, Any], module: TransferModule, data: TransferDataModule, steps: int
) -> tuple[TransferModule, TransferDataModule]:
    """Module and data for `steps` batches of the phase that trains most; they share nothing that training changes.

    The module wants a schedule of rates: its full rate is 1.
    """
    trial = copy.deepcopy(module)
    trial.optimizer_config["lr"] = 1.0
    trial.strategy = widest_phase(module, config["training"]["epochs"])
    trial.fixed_progress = HALFWAY
    trial.compression = Compression()  # what has not changed the network yet does not
    trial.window = None  # a run's last epochs may have a rate of their own
    trial_data = copy.copy(data)
    trial_data.epoch = steps
    return trial, trial_data


def widest_phase(module: TransferModule, epochs: int) -> OnePhase:
    """The phase with the most trained parameters, the first of several: it needs the most memory and care."""
    phases = module.phases(epochs)
    trained = [sum(p.numel() for part in module.trained_members([phase]).values() for _, p in part) for phase in phases]
    number = trained.index(max(trained))
    return OnePhase(number + 1, phases[number])


def trained_by(experiment: Experiment) -> Trained:
    """What of the network trains, at which rates, and whether it begins with weights."""
    if not experiment.module.backbone_trains(experiment.epochs):
        return "head"
    if experiment.weights is None:
        return "from scratch"
    return "layer by layer" if isinstance(experiment.module.rates, LayerDecay) else "everything"


def batchnorm_of_run(experiment: Experiment) -> bool | None:
    """What `strategy.train_bn=auto` is for a run; None where its backbone has no BatchNorm."""
    data, module = experiment.data, experiment.module
    if not batchnorm_parameters(module.backbone):
        return None
    target = data.domains["target"].train
    plain = (
        data.federation is None
        and [*data.train_domains] == ["target"]
        and target.labels is not None
        and not target.partly_labelled
        and not any(term.replaces_batchnorm for term in module.terms.values())
    )
    pretrained = module.strategy.pretrained and experiment.weights is not None
    return trains_batchnorm(data.steps_per_epoch * experiment.epochs, pretrained=pretrained, plain=plain)


def resolve_auto(experiment: Experiment, resumed: Path | None = None, *, look: bool = False) -> dict[str, Any]:
    """Put numbers where the config says `auto` or `default`.

    They are found on a copy, or are those of the checkpoint that the run goes on from; a default rate is looked up.
    `look` finds a learning rate whatever the config says. Returns what was found, for results.json.
    """
    config, module, data, folder = experiment.config, experiment.module, experiment.data, experiment.folder
    stored = torch.load(resumed, map_location="cpu", weights_only=True, mmap=True)["config"] if resumed else None
    found: dict[str, Any] = {}
    if experiment.layer_choice:  # before all else, as the network depends on it
        found["layer"] = experiment.layer_choice.describe()
    if config["data"]["batch_size"] == "auto":
        if stored:
            found["batch_size"] = {"value": stored["data"]["batch_size"], "resumed": True}
        else:
            limit = batch_size_limit(config, data)
            found["batch_size"] = {"value": find_batch_size(config, module, data, folder), "limit": limit}
        config["data"]["batch_size"] = data.batch_size = found["batch_size"]["value"]
    if module.strategy.train_bn == "auto":  # once the batch size says how many steps there are
        train_bn = stored["strategy"].get("train_bn") if stored else batchnorm_of_run(experiment)
        module.strategy.train_bn = config["strategy"]["train_bn"] = train_bn
        if train_bn is not None:
            experiment.decided["strategy.train_bn"] = train_bn
    if config["optimizer"]["lr"] == "default" and not look:
        rate = default_rate(config["backbone"]["_target_"], trained_by(experiment))
        found["lr"] = {"value": stored["optimizer"]["lr"], "resumed": True} if stored else rate.describe()
        config["optimizer"]["lr"] = module.optimizer_config["lr"] = found["lr"]["value"]
    if look or config["optimizer"]["lr"] == "auto":
        if stored:
            found["lr"] = {"value": stored["optimizer"]["lr"], "resumed": True}
        else:
            curve = lr_range_test(config, module, data, folder)
            found["lr"] = describe(curve, config["tuning"]["suggestion"])
            if is_rank_zero():
                curve.write_csv(folder / LR_CURVE)
                plots.range_test(curve, found["lr"]["suggestions"], folder / LR_PICTURE)
        config["optimizer"]["lr"] = module.optimizer_config["lr"] = found["lr"]["value"]
    return found
