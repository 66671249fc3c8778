"""A finished run opened again: its data, the network that was tested, and the backbone as it began."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graft.backbones.base import Backbone
from graft.data.module import TransferDataModule
from graft.data.samples import Split, generator
from graft.errors import GraftError
from graft.experiment import Experiment, assemble
from graft.heads.base import SHARED
from graft.model.model import Model, load
from graft.pretrain import Learned, keeps_source_head, load_learned
from graft.runs.folder import CONFIG
from graft.runs.untrusted import read_config
from graft.weights.files import HERE

AS_IT_BEGAN = "random numbers"


@dataclass(frozen=True)
class Opened:
    """`begin` says what `before` started from; `before` is None where `missing` says why it is not there.

    `head_before` goes with it, and `classifier` says what taught it the target's classes; nothing where it is random.
    """

    data: TransferDataModule
    model: Model
    before: Backbone | None
    head_before: nn.Module
    begin: str
    classifier: str
    missing: str
    shared_head: bool  # of both domains
    has_source: bool  # whose samples go through the kept model as they did in training

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


def open_run(folder: Path, results: Mapping[str, Any], allow: Sequence[str], model: Model | None = None) -> Opened:
    """Read a run's data and networks again, in full precision on the CPU; `model` where that is there already.

    Raises GraftError where the data or the model are no longer there, or are no longer those of the run.
    """
    model = model or load(folder, allow)
    config = read_config(folder / CONFIG, allow)
    config = {"report": {"slices": []}, **config, "compress": {}, "allow": [*allow], "baselines": "none"}
    config["save"] = {"ledger": None, **config.get("save", {})}
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
    begin = f"pretraining on the {experiment.weights}" if experiment.weights in HERE else begin
    head, classifier = head_before(experiment)
    return Opened(
        experiment.data,
        model,
        before,
        head.eval().requires_grad_(False),
        begin,
        classifier if before is not None else "",
        missing,
        shared_head=SHARED in experiment.module.heads,
        # the model keeps the target's BatchNorm statistics alone
        has_source="source" in experiment.data.domains and config["bn"] != "domain_specific",
    )


def begun(experiment: Experiment, results: Mapping[str, Any]) -> str:
    """Put the weights that the run began with into backbone and head; why they are not there, or nothing."""
    if experiment.weights not in HERE:  # of a file or library, and random ones by the run's seed, are there already
        return ""
    kept = Path(results["weights"]["folder"])
    try:
        learned = Learned.read(kept)
    except (OSError, RuntimeError, ValueError, KeyError):
        return f"the weights that pretraining gave are no longer in the cache ({kept})"
    load_learned(experiment, learned)
    return ""


def head_before(experiment: Experiment) -> tuple[nn.Module, str]:
    """The head that the run began with, and whose model taught it the target's classes; of a random one nothing."""
    config, module = experiment.config, experiment.module
    if (run := config["head"].get("weights")) is not None:
        return module.head("target"), f"the model of {run}"
    learned = experiment.weights == "source" and keeps_source_head(config) and config["source_task"] is None
    if learned and experiment.data.same_classes:
        return module.head("source"), "the model pretrained on the source alone"
    return module.head("target"), ""
