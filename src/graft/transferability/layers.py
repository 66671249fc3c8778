"""`backbone.layer=auto`: the layer whose frozen features a linear probe reads best on validation."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from graft.backbones.base import Backbone
from graft.backbones.layers import keep_layers, number_of_layers
from graft.baselines.scores import capped
from graft.cache.disk import DiskCache
from graft.cache.extract import extract
from graft.data.module import TransferDataModule
from graft.errors import GraftError
from graft.network import build_backbone
from graft.tasks.base import Task
from graft.training.trainer import first_device
from graft.transferability.base import Evidence
from graft.transferability.linear_probe import LinearProbe
from graft.weights.loading import load_weights


@dataclass(frozen=True)
class LayerChoice:
    """What the probe read on the validation split of a domain behind each layer, from the first to the last."""

    domain: str
    scores: tuple[float, ...]  # accuracy, or R^2 of numbers
    samples: int  # of validation

    @property
    def layer(self) -> int:
        """The best one; of equal ones the first, which costs least."""
        return self.scores.index(max(self.scores)) + 1

    def describe(self) -> dict[str, Any]:
        """For results.json."""
        tried = [{"layer": number + 1, "value": score} for number, score in enumerate(self.scores)]
        return {"value": self.layer, "domain": self.domain, "samples": self.samples, "tried": tried}


def choose_layer(config: Mapping[str, Any], data: TransferDataModule, task: Task, cache: DiskCache) -> LayerChoice:
    """Probe every layer of the pretrained backbone, without the test split and labels of an unlabelled target.

    Features are kept: a frozen run at the chosen layer finds them. Nothing random is drawn from the run's state. Raises
    GraftError for a backbone without such layers, and for data on which nothing can be probed.
    """
    domain = probed_domain(data, task)
    if not config["cache"]["features"]:
        cache = DiskCache(cache.folder, 0)
    with torch.random.fork_rng(devices=()):
        backbone = build_backbone({**config, "backbone": {**config["backbone"], "layer": None}}, data)
        number = number_of_layers(backbone.network, backbone.layers)
        if number < 2:
            raise GraftError(
                f"backbone.layer=auto: {backbone.name} is no stack of layers that are all alike, of which one could be "
                "chosen. Use backbone.layer=null."
            )
        load_weights(backbone, config["backbone"]["weights"])
        backbone.to(first_device(config["trainer"]))
        looked_at = copy.copy(data)
        looked_at.set_input(backbone.input_spec)
        whole = data.domains[domain]
        looked_at.domains = {
            **data.domains,
            domain: replace(whole, train=capped(whole.train.labelled, LinearProbe.most)),
        }
        scores = []
        for layer in range(number, 0, -1):
            keep_layers(backbone.network, backbone.layers, layer, backbone.name)
            scores.append(LinearProbe().value(evidence(backbone, looked_at, domain, cache)))
    return LayerChoice(domain, tuple(reversed(scores)), len(whole.val))


def probed_domain(data: TransferDataModule, task: Task) -> str:
    """The target where its training samples have labels of the classes that are told apart, else the source."""
    labelled = [
        name for name in ("target", "source") if name in data.domains and data.domains[name].train.labels is not None
    ]
    if task.rejects and "source" in labelled:  # all of whose samples have a class
        labelled = ["source"]
    if not labelled or not isinstance(data.domains[labelled[0]].train.labels, Tensor):
        raise GraftError(
            "backbone.layer=auto: a linear probe needs labels that are classes or numbers. Give the layer by its "
            "number, or backbone.layer=null for the last."
        )
    if not len(data.domains[labelled[0]].val):
        raise GraftError(
            f"backbone.layer=auto: the {labelled[0]} has no validation split to choose on. Set "
            f"data.{labelled[0]}.val_fraction, or give the layer by its number."
        )
    return labelled[0]


def evidence(backbone: Backbone, data: TransferDataModule, domain: str, cache: DiskCache) -> Evidence:
    """Frozen features of a domain's training and validation samples, with their labels."""
    train, val = (extract(backbone, data, domain, split, cache) for split in ("train", "val"))
    return Evidence.of(train, val, data.classes(domain))
