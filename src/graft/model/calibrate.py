"""How sure a run's probabilities should be, fitted on the labels of its validation split."""

from typing import Any

import pytorch_lightning as pl

from graft.experiment import Experiment
from graft.model.save import gathered, in_order
from graft.report import temperature
from graft.training.evaluation import validation_predictions


def calibrate(experiment: Experiment, trainer: pl.Trainer) -> dict[str, Any] | None:
    """The temperature for `results.json`; every process takes part.

    None for numbers, several labels a sample, a target that counts as unlabelled, and where validation is cut short.
    """
    data, task = experiment.data, experiment.module.tasks["target"]
    labels = data.domains["target"].val.labels
    if task.label_kind != "classes" or data.target_setting == "unsupervised" or labels is None:
        return None
    parts = validation_predictions(trainer, experiment)
    if parts is None:
        return None
    indices, values = in_order(gathered(parts))
    probabilities = task.probabilities(values)
    if probabilities is None or not bool(probabilities.isfinite().all()):
        return None
    return temperature.describe(probabilities.numpy(), labels[indices].long().numpy())
