"""A finished run opened again: its data, the network that was tested, and the backbone as it began."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graft.backbones.base import Backbone
from graft.data.module import TransferDataModule
from graft.data.samples import Split, generator
from graft.errors import GraftError
from graft.experiment import Experiment, assemble
from graft.model.model import Model, load
from graft.pretrain import Learned
from graft.runs.folder import CONFIG
from graft.runs.untrusted import read_config

AS_IT_BEGAN = "random numbers"


@dataclass(frozen=True)
class Opened:
    """`begin` says what `before` started from; `before` is None where `missing` says why it is not there."""

    data: TransferDataModule
    model: Model
    before: Backbone | None
    begin: str
    missing: str

    def split(self, domain: str, name: str) -> Split:
        """A split of a domain."""
        return getattr(self.data.domains[domain], name)

    def limited(self, domain: str, name: str, samples: int) -> tuple["Opened", Tensor]:
        """The same with at most so many samples in a split, always the same ones, and their indices in it."""
        split = self.split(domain, name)
        drawn = torch.randperm(len(split), generator=generator(0, "inspection"))[:samples]
        return self.chosen(domain, name, drawn.sort().values)

    def chosen(self, domain: str, name: str, indices: Tensor) -> tuple["Opened", Tensor]:
        """The same with the samples at `indices` `(M,)` of a split alone."""
        data, subset = copy.copy(self.data), self.split(domain, name).subset(indices)
        changed: dict[str, Any] = {name: subset}
        data.domains = self.data.domains | {domain: replace(self.data.domains[domain], **changed)}
        return replace(self, data=data), indices


def open_run(folder: Path, results: Mapping[str, Any], allow: Sequence[str]) -> Opened:
    """Read a run's data and networks again, in full precision on the CPU.

    Raises GraftError where the data or the model are no longer there, or are no longer those of the run.
    """
    model = load(folder, allow)
    config = read_config(folder / CONFIG, allow)
    config = {"report": {"slices": []}, **config, "allow": [*allow], "baselines": "none"}
    config["trainer"] = {**config["trainer"], "accelerator": "cpu", "precision": "32-true"}
    try:
        experiment = assemble(config)
    except KeyError as error:
        raise GraftError(f"{folder / CONFIG} lacks {error}: it is of an older Graft.") from None
    found, expected = experiment.data.domains["target"].fingerprint, results["data"]["target"]["fingerprint"]
    if found != expected:
        raise GraftError(f"{folder}: the target's data have changed since the run.")
    missing = begun(experiment, results)
    before = None if missing else experiment.module.backbone.eval().requires_grad_(False)
    begin = experiment.loaded.source if experiment.loaded else AS_IT_BEGAN
    begin = "pretraining on the source" if experiment.weights == "source" else begin
    return Opened(experiment.data, model, before, begin, missing)


def begun(experiment: Experiment, results: Mapping[str, Any]) -> str:
    """Put the weights that the run began with into the experiment's backbone; why they are not there, or nothing."""
    if experiment.weights != "source":  # of a file or library, and random ones by the run's seed, are there already
        return ""
    kept = Path(results["weights"]["folder"])
    try:
        learned = Learned.read(kept).weights["backbone"]
    except (OSError, RuntimeError, ValueError, KeyError):
        return f"the weights that pretraining gave are no longer in the cache ({kept})"
    backbone, source = experiment.module.backbone, experiment.data.domains["source"]
    tensors, _ = backbone.learned_from(source.backbone_arguments, learned)
    backbone.load_state_dict({**backbone.state_dict(), **tensors})
    return ""
