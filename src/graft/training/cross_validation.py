"""`selection=budget`: fits on folds of the target's training labels, inside the run, that choose its epoch.

Each fold is an experiment of its own: the same pretrained weights, the same new head, the same optimizer steps at the
same rates. Nothing of it is kept but what it reads on the labels that it did not train on.
"""

import copy
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from graft.build import build
from graft.cache.features import FeatureCache
from graft.callbacks.frozen_features import FrozenFeatures
from graft.callbacks.interrupt import keyboard_interrupts
from graft.callbacks.nonfinite import NonFinite
from graft.callbacks.progress import Progress
from graft.data.module import TransferDataModule
from graft.data.splits import others
from graft.errors import Interrupted
from graft.experiment import Experiment, prepare
from graft.selection.budget import Budget
from graft.selection.last import Last
from graft.signals import how_stopped
from graft.training.fitting import validated_weights
from graft.training.trainer import build_trainer


def plan_folds(experiment: Experiment) -> None:
    """Let a rule that holds labels out divide the training labels."""
    train = experiment.data.domains["target"].train
    if isinstance(experiment.rule, Budget) and train.labels is not None:
        frozen = not experiment.module.backbone_trains(experiment.epochs)
        experiment.rule.plan(train.labels, frozen, experiment.data.subset_seed, train.groups)


def cross_validate(experiment: Experiment) -> None:
    """Train every fold that the rule holds out, and let it choose the epoch; nothing where it holds none out.

    An interrupted run begins its folds again: they are the same ones, bit by bit. Raises Diverged where a fold does.
    """
    rule, tasks = experiment.rule, experiment.module.tasks
    if not isinstance(rule, Budget) or not rule.held_out:
        return
    metric = f"val/target/{rule.metric_of(tasks['target'])}"
    started, curves = time.perf_counter(), list[dict[int, float]]()
    with isolate_rng():
        for number, indices in enumerate(rule.held_out, start=1):
            label = f"fold {number}/{len(rule.held_out)}"
            try:
                curves.append(trained(fold_of(experiment, indices), experiment, indices, metric, label))
            except Interrupted as error:
                how = f"{how_stopped(error.signum)} in {label}"
                raise Interrupted(f"{how}: the folds begin again with the same command.", error.signum) from None
    epochs = list(curves[0])
    values = torch.tensor([[curve[epoch] for epoch in epochs] for curve in curves], dtype=torch.float64)
    rule.choose(epochs, values, rule.higher_is_better(tasks), time.perf_counter() - started)
    experiment.unprepared = None


def fold_of(experiment: Experiment, indices: Tensor) -> Experiment:
    """The experiment without the labels at `indices` `(M,)`, which are its validation split."""
    data, module = experiment.data.held_out(indices), copy.deepcopy(experiment.unprepared)
    assert module is not None
    labels = data.domains["target"].train.labels
    assert labels is not None  # they are what is held out
    module.tasks["target"].fit(labels)
    module.class_weights = {domain: data.class_weights(domain) for domain in data.train_domains}
    module.optimizer_config = dict(experiment.module.optimizer_config)
    module.rule, module.rule_metric = Last(), None
    settings = experiment.config["averaging"]
    fold = replace(experiment, data=data, module=module, averaging=build(settings) if settings else None, rule=Last())
    prepare(fold)
    return fold


def trained(fold: Experiment, whole: Experiment, indices: Tensor, metric: str, label: str) -> dict[int, float]:
    """Train a fold; its validation metric by epoch, from 0."""
    config, curve = fold.config, Curve(metric)
    callbacks = validated_weights(fold)
    if config["cache"]["features"]:
        views = config["cache"]["augmented_views"]
        averages = fold.averaging is not None
        callbacks.insert(0, FoldFeatures(FeatureCache(fold.cache), views, averages, data=whole.data, held_out=indices))
    with tempfile.TemporaryDirectory() as folder:
        callbacks.append(NonFinite(Path(folder), config["training"]["on_nonfinite"]))
        callbacks += [build(settings) for settings in config["callbacks"].values() if settings]
        for progress in (one for one in callbacks if isinstance(one, Progress)):
            progress.label = label
            progress.in_sweep()  # no last state of each of them
        settings = {**config["trainer"], "profiler": None}
        trainer = build_trainer(settings, config["training"], fold.epochs, Path(folder), [], [*callbacks, curve])
        with keyboard_interrupts():
            trainer.fit(fold.module, fold.data)
    return curve.values


class Curve(Callback):
    """Keeps a validation metric of every epoch."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.values: dict[int, float] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the epoch's."""
        self.values[trainer.current_epoch] = float(trainer.callback_metrics[self.metric])


class FoldFeatures(FrozenFeatures):
    """Takes a fold's activations out of those of all training samples, so that the frozen part runs once for all."""

    def __init__(self, *arguments: Any, data: TransferDataModule, held_out: Tensor) -> None:
        super().__init__(*arguments)
        self.data = data
        self.indices = {"train": others(len(data.domains["target"].train), held_out), "val": held_out}

    def _stored_with(
        self, trainer: pl.Trainer, domain: str, split_name: str
    ) -> tuple[TransferDataModule, str, Tensor | None]:
        """The target's training samples, of which both splits of a fold are some."""
        if domain != "target":
            return super()._stored_with(trainer, domain, split_name)
        return self.data, "train", self.indices[split_name]
