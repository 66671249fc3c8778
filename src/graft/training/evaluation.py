"""Validation and test of the weights that are in a module."""

from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from graft.data.module import TransferDataModule
from graft.experiment import Experiment
from graft.module import TransferModule
from graft.selection.base import of_validation
from graft.training.trainer import build_trainer


def validation_metrics(experiment: Experiment) -> dict[str, float]:
    """Validation metrics of the weights that are in the module; nothing is logged."""
    config = experiment.config
    settings = {**config["trainer"], "profiler": None}
    trainer = build_trainer(settings, config["training"], experiment.epochs, experiment.folder, [], [])
    trainer.validate(experiment.module, experiment.data, verbose=False)
    return of_validation(trainer.callback_metrics)


def validation_predictions(trainer: pl.Trainer, experiment: Experiment) -> list[tuple[Tensor, Tensor]] | None:
    """Indices and predictions `(B, ...)` of each batch of the target's validation split, of this process.

    None where the Trainer leaves batches out.
    """
    limit = trainer.limit_val_batches
    if isinstance(limit, int) or limit != 1.0:  # the integer 1 is one batch
        return None
    loader = experiment.data.eval_loader("target", "val")
    batches: Any = trainer.predict(experiment.module, loader)
    return [(batch["target"][0], batch["target"][1].cpu()) for batch in batches]


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
