"""What a run's validation split tells of its predictions: how sure they should be, and which inputs are unusual."""

from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from graft.data.samples import DomainData, names_of
from graft.data.stream import whole
from graft.errors import GraftError
from graft.experiment import Experiment
from graft.model import unusual
from graft.model.neighbours import Neighbours
from graft.model.predictions import text_of, words_of
from graft.model.save import hashed
from graft.report import temperature
from graft.training.evaluation import Outputs, outputs_of


def reads_validation(experiment: Experiment) -> bool:
    """Whether `temperature_for` or `thresholds_for` may find something, which takes a pass over validation.

    Numbers, boxes and texts have neither a temperature nor an energy, and thresholds go into the model alone.
    """
    data, save = experiment.data, experiment.config["save"]
    kind = experiment.module.tasks["target"].label_kind
    calibrated = kind == "classes" and data.target_setting != "unsupervised"
    judged = save["model"] != "none" and (kind not in ("numbers", "boxes", "texts") or save["neighbours"])
    return (calibrated or judged) and len(data.domains["target"].val) > 0


def temperature_for(experiment: Experiment, outputs: Outputs | None) -> dict[str, Any] | None:
    """The temperature for `results.json`, fitted on the labels of the validation split, of which `outputs` are.

    None for numbers, several labels a sample, a target that counts as unlabelled, and where validation is cut short.
    """
    data, task = experiment.data, experiment.module.tasks["target"]
    labels = data.domains["target"].val.labels
    if outputs is None or task.label_kind != "classes" or data.target_setting == "unsupervised" or labels is None:
        return None
    probabilities = task.probabilities(outputs.predictions)
    if probabilities is None or not bool(probabilities.isfinite().all()):
        return None
    return temperature.describe(probabilities.numpy(), labels[outputs.indices].long().numpy())


def thresholds_for(
    experiment: Experiment, outputs: Outputs | None, neighbours: Neighbours | None
) -> dict[str, Any] | None:
    """From which energy and distance on an input is unusual, for `results.json`; needs no label.

    None for numbers without `neighbours`, and where validation is cut short.
    """
    if outputs is None:
        return None
    scores = {"energy": experiment.module.tasks["target"].energy(outputs.logits)}
    if neighbours is not None and outputs.features is not None:
        scores["distance"] = neighbours.distances(outputs.features)
    return unusual.thresholds({name: values for name, values in scores.items() if values is not None})


def neighbours_for(experiment: Experiment, trainer: pl.Trainer) -> Neighbours | None:
    """Features of the target's training samples, where `save.neighbours` asks for them; every process takes part.

    Raises GraftError for a network that gives none.
    """
    config, data = experiment.config, experiment.data
    if not config["save"]["neighbours"]:
        return None
    outputs = outputs_of(trainer, experiment.module, data.plain_train_loader("target"))
    if outputs.features is None:
        raise GraftError(
            f"save.neighbours=true: the head {config['head']['_target_']} takes tokens of a backbone that gives no "
            "features beside them. Set save.neighbours=false."
        )
    target = data.domains["target"]
    samples = names_of(whole(target.train), outputs.indices)
    if "paths" in config["save"]["redact"]:
        samples = [hashed(name) for name in samples]
    return Neighbours.of(outputs.features, samples, labels_of(target, outputs.indices))


def labels_of(target: DomainData, indices: Tensor) -> list[str | None]:
    """Labels of training samples as text; None for each that has none."""
    if target.train.labels is None:
        return [None] * len(indices)
    known = indices[indices < len(target.train.labels)]
    words = words_of(target.train.labels[known], target.classes)
    labels = dict(zip(known.tolist(), map(text_of, words), strict=True))
    return [labels.get(index) for index in indices.tolist()]
