"""Validation and test of the weights that are in a module."""

from collections.abc import Sequence

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from graft.data.module import TransferDataModule
from graft.experiment import Experiment
from graft.module import TransferModule
from graft.selection.base import of_validation
from graft.training.trainer import build_trainer


def validation_metrics(experiment: Experiment, callbacks: Sequence[Callback] = ()) -> dict[str, float]:
    """Validation metrics of the weights that are in the module; nothing is logged."""
    config = experiment.config
    settings = {**config["trainer"], "profiler": None}
    trainer = build_trainer(settings, config["training"], experiment.epochs, experiment.folder, [], callbacks)
    trainer.validate(experiment.module, experiment.data, verbose=False)
    return of_validation(trainer.callback_metrics)


def test(trainer: pl.Trainer, module: TransferModule, data: TransferDataModule) -> dict[str, float]:
    """Test metrics as they are, then of the target under each shift: `test/target_<shift>/<metric>`."""
    trainer.test(module, data, verbose=False)
    confusion, predictions = dict(module.confusion), module.test_predictions
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("test/")}
    for shift in data.test_shifts:
        data.test_shift = shift
        trainer.test(module, data, verbose=False)
        for name, value in trainer.callback_metrics.items():
            if name.startswith("test/target/"):
                metrics[name.replace("target", f"target_{shift}")] = float(value)
    module.confusion, module.test_predictions = confusion, predictions
    return metrics
