"""Pretraining in the run itself (`backbone.weights=source|target`), cached by the content of everything it depends on.

It is a run inside the run, on one domain alone, with its own objective, strategy and terms, so it needs no code but the
cache. That domain is its source: the run's, or the target's training inputs without their labels.
"""

import copy
import functools
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn

from graft.backbones.base import Backbone
from graft.build import build
from graft.cache import key
from graft.cache.disk import NoRoom
from graft.callbacks.interrupt import keyboard_interrupts
from graft.callbacks.nonfinite import NonFinite
from graft.callbacks.progress import Progress
from graft.config.types import Count, Part, Positive, Seed
from graft.data.module import Augment, TransferDataModule
from graft.data.samples import sha256
from graft.errors import Diverged, GraftError, Interrupted
from graft.heads.base import arguments_of
from graft.heads.class_names import ClassNamesHead
from graft.module import TransferModule
from graft.network import build_backbone, build_head, head_settings
from graft.notes import say_once
from graft.objectives.base import Objective
from graft.rates.uniform import Uniform
from graft.runs.folder import LAST_CHECKPOINT
from graft.signals import how_stopped
from graft.tasks.base import Task
from graft.terms.base import Term, TermContext, trained_domains
from graft.terms.setup import build_terms, choose_views
from graft.training import flops
from graft.training.lightning import as_rank_zero
from graft.training.optim import BaseOptimizerSettings
from graft.training.trainer import build_trainer, device_type, own_device
from graft.weights.embedding import embedding_of
from graft.weights.files import HERE, OF_RUN, shares_embedding

if TYPE_CHECKING:  # else whatever an experiment imports would count as code that pretraining used
    from graft.experiment import Experiment

WITHOUT_EFFECT = ("accelerator", "profiler", "detect_anomaly", "max_time")  # keys of the trainer
SHOWING_ONLY = "graft.callbacks."  # callbacks that change nothing of what is learned
WEIGHTS, METRICS = "weights.pt", "metrics.json"
TRAINING = ("gradient_clip_norm", "accumulate_batches", "channels_last", "validate_every_epochs")  # keys with an effect


@dataclass(frozen=True)
class Learned:
    """What it gives: state dicts of the backbone and of a head that learned, metrics by their names, and its FLOPs."""

    weights: dict[str, dict[str, Tensor]]
    metrics: dict[str, float]
    flops: float

    def write(self, folder: Path) -> None:
        """Into an entry of the cache."""
        torch.save(self.weights, folder / WEIGHTS)
        (folder / METRICS).write_text(json.dumps({"metrics": self.metrics, "flops": self.flops}, indent=2))

    @classmethod
    def read(cls, folder: Path) -> "Learned":
        """Out of an entry of the cache."""
        weights = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
        return cls(weights, **json.loads((folder / METRICS).read_text()))


class PretrainOptimizer(BaseOptimizerSettings):
    """The keys of `pretrain.optimizer`: its rate is a number, as nothing looks for one."""

    lr: Positive


class PretrainSettings(TypedDict):
    """The keys of `pretrain`."""

    epochs: Count
    batch_size: Count
    augment: Augment
    seed: Seed
    objective: Part
    strategy: Part
    term: Mapping[str, Part | None] | None
    optimizer: PretrainOptimizer
    scheduler: Part


@dataclass(frozen=True)
class Pretrained:
    """What pretraining reached."""

    domain: str  # source or target
    samples: int  # that it trained on
    labels: int  # of them
    metrics: dict[str, float]  # by names such as `<stage>/source/<metric>` and `train/term/<term>`, right after it
    folder: Path
    tensors: int  # of the backbone
    not_learned: list[str]  # inputs that the source says nothing of, whose weights stay random
    warning: str  # that it learned next to nothing; empty where it did
    seconds: float  # spent in this run; 0 when it came from the cache
    flops: float  # of its training, whoever spent them


def pretrain(experiment: "Experiment") -> None:
    """Load into backbone and head what pretraining gives, where `backbone.weights` asks for it.

    It is computed once for all jobs that share it, and by one process alone, whatever `trainer` says: the processes of
    a distributed job wait for the first of them as the jobs of a sweep do, and its number changes no weight.
    """
    if experiment.weights not in HERE:
        return
    config, module, cache, domain = experiment.config, experiment.module, experiment.cache, experiment.weights
    data, backbone, head = pretraining_data(experiment.data, domain), module.backbone, module.head(domain)
    started = time.perf_counter()
    where_from = f"on the {domain}" if domain == "source" else "on the target's training inputs"
    name = cache_key(config, data, backbone)
    reached = cache.folder.parent / "interrupted" / f"{name}.ckpt"
    trained: list[Learned] = []  # once at most, also where it cannot be kept

    def learn(folder: Path, where: str) -> Learned:
        if not trained:
            print(f"Pretraining {where_from} ({data.domains['source'].name}), {where}", flush=True)
            try:
                with as_rank_zero():
                    trained.append(train_alone(experiment, data, folder, reached if reached.is_file() else None))
            except Interrupted as error:
                how = f"{how_stopped(error.signum)} while pretraining {where_from}"
                raise Interrupted(f"{how}{keep(folder / LAST_CHECKPOINT, reached)}", error.signum) from None
            except Diverged as error:
                raise Diverged(f"Pretraining {where_from}, of which nothing is kept. {error}") from None
            reached.unlink(missing_ok=True)
        return trained[0]

    def make(folder: Path) -> None:
        one = config["trainer"]["devices"] == config["trainer"]["num_nodes"] == 1
        alone = "" if one else "in one process, as for any number of them, "
        learn(folder, f"{alone}kept in {cache.folder / name}").write(folder)

    def bytes_expected() -> int:
        return sum(tensor.nbytes for part in (backbone, head) for tensor in part.state_dict().values())

    try:
        found = cache.get(name, bytes_expected, make, Learned.read)
    except NoRoom as error:
        with tempfile.TemporaryDirectory() as folder:
            found = learn(Path(folder), f"again in every run and process, because it cannot be kept: {error}")
    new = load_learned(experiment, found)
    if keeps_source_head(config):
        backbone.set_pretrained_head(copy.deepcopy(head))
    seconds = time.perf_counter() - started if trained else 0.0
    tensors = 1 if shares_embedding(config["backbone"]) else len(found.weights["backbone"])
    warning = learned_little(found.metrics, data, module.tasks[domain]) if looks_at_labels(config) else ""
    if warning:
        say_once(warning)  # the jobs of a sweep share the pretraining
    train = data.domains["source"].train
    labels = data.labelled("source") if looks_at_labels(config) else 0
    entry = cache.folder / name
    reached_now = (found.metrics, entry, tensors, new, warning, seconds, found.flops)
    experiment.pretrained = Pretrained(domain, len(train), labels, *reached_now)
    pl.seed_everything(config["seed"], verbose=False)


def pretraining_data(data: TransferDataModule, weights: str | None) -> TransferDataModule:
    """A run's data as pretraining for such `backbone.weights` sees them: its domain is their source."""
    return data.of_unlabelled_target() if weights == "target" else data


def load_learned(experiment: "Experiment", learned: Learned) -> list[str]:
    """Put what pretraining gave into the run's backbone, and into its head where that learned.

    Returns the names of inputs that pretraining's data say nothing of, whose weights stay as they are. The source's own
    BatchNorm statistics are not in it: `prepare` starts them at what is loaded here.
    """
    module = experiment.module
    source = pretraining_data(experiment.data, experiment.weights).domains["source"]
    tensors, new = module.backbone.learned_from(source.backbone_arguments, learned.weights["backbone"])
    if shares_embedding(experiment.config["backbone"]):
        own = f"network.{embedding_of(module.backbone)}.weight"
        tensors = {own: tensors[own]}
    module.backbone.load_state_dict({**module.backbone.state_dict(), **tensors})
    if keeps_source_head(experiment.config):
        module.head("source").load_state_dict(learned.weights["head"])
        target = module.head("target")
        if isinstance(target, ClassNamesHead) and target is not module.head("source"):
            target.load_state_dict(target.with_learned(learned.weights["head"]))
    return new


def learned_little(metrics: Mapping[str, float], data: TransferDataModule, task: Task) -> str:
    """A line where the source's validation is hardly better than always the most frequent class; else empty.

    Within two standard errors of that class's share, which depends on the number of validation samples.
    """
    accuracy, labels = metrics.get("val/source/acc"), data.domains["source"].val.labels
    if accuracy is None or labels is None or task.label_kind != "classes":
        return ""
    chance = float(labels.long().bincount().max()) / len(labels)
    if accuracy > chance + 2 * (chance * (1 - chance) / len(labels)) ** 0.5:
        return ""
    return (
        f"WARNING: pretraining learned next to nothing: val/source/acc={accuracy:.3f}, and {chance:.3f} is the share "
        f"of the most frequent class. Train longer (pretrain.epochs), or change pretrain.optimizer.lr"
    )


def cache_key(config: Mapping[str, Any], data: TransferDataModule, backbone: Backbone) -> str:
    """Name of the cache entry: a hash over data, architecture, training settings, library versions and code."""
    built = {
        "backbone": {k: v for k, v in config["backbone"].items() if k not in OF_RUN},
        "head": arguments_of(head_settings(config, "source")),
        "task": config["source_task"] or config["task"],
        "pretrain": config["pretrain"],
        "callbacks": [c for c in config["callbacks"].values() if c and not c["_target_"].startswith(SHOWING_ONLY)],
    }
    depends_on = {
        **built,
        "data": data.domains["source"].fingerprint,
        "texts": [texts_digest(data, term.text) for term in build_terms(config["pretrain"]).values() if term.text],
        **{k: config["data"].get(k) for k in ("split_seed", "balance", "bucket_by_length")},
        "input": repr(backbone.input_spec),  # and so what `auto` means in the backbone's config
        "training": {k: config["training"][k] for k in TRAINING},
        "trainer": {k: v for k, v in alone_in(config["trainer"]).items() if k not in WITHOUT_EFFECT},
        "device": device_type(config["trainer"]["accelerator"]),
        "numerics": key.numerics(),
        "code": key.code_used(__name__, *key.targets(built), *data.parts("source")),
    }
    return key.cache_key(depends_on)


def texts_digest(data: TransferDataModule, column: str) -> str:
    """Hash of the texts that a term learns from, which the fingerprint of the data, about samples and labels, lacks."""
    return sha256(str(text).encode() for text in data.domains["source"].train.columns.get(column, ()))


def keep(checkpoint: Path, reached: Path) -> str:
    """Keep an interrupted pretraining's checkpoint for the next run; returns the end of what to tell the user."""
    if checkpoint.is_file():
        reached.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(checkpoint, reached)
    if not reached.is_file():
        return ", before anything was saved: the next run starts it again."
    return ". The same command, typed again, goes on from where it was."


def train_alone(experiment: "Experiment", data: TransferDataModule, folder: Path, resumed: Path | None) -> Learned:
    """Train from random weights, or from an interrupted training's checkpoint, on `data`'s source; curves in `folder`.

    Backbone and head are created again, so that they start from pretraining's own seed and not from the run's.
    """
    config, task = experiment.config, experiment.module.tasks[str(experiment.weights)]
    settings = config["pretrain"]
    pl.seed_everything(settings["seed"], verbose=False)
    backbone = build_backbone(config, experiment.data)
    head = build_head(config, backbone, data.num_outputs("source", task), data.classes("source"), "source")
    objective, terms = build(settings["objective"]), build_terms(settings)
    source = source_alone(data, config, backbone, objective, terms)
    module = TransferModule(
        backbone=backbone,
        heads={"source": head},
        tasks={"source": task},
        num_outputs={"source": data.num_outputs("source", task)},
        objective=objective,
        strategy=build(settings["strategy"]),
        terms=terms,
        rates=Uniform(),
        schedule=build(settings["scheduler"]),
        optimizer=settings["optimizer"],
        class_weights={"source": data.class_weights("source")},
        seed=settings["seed"],
    )
    context = context_of(source, module)
    for term in terms.values():
        term.check(context)
    for term in terms.values():
        term.prepare(context)
    logger = CSVLogger(folder, name="", version="")
    # Whatever the run does with it: what is kept for other runs is finite.
    callbacks = [NonFinite(Path(config["paths"]["run_dir"]), "stop", "pretrain.")]
    callbacks += [build(settings) for settings in config["callbacks"].values() if settings]
    for callback in callbacks:
        if isinstance(callback, Progress):
            callback.label = "pretraining"
    own = {"devices": own_device(config["trainer"]), "max_time": None}  # half a pretraining is not for other runs
    scored = learns_labels(config) and data.domains["source"].val.labels is not None
    if not scored:
        own["limit_val_batches"] = 0  # nothing that learns predicts anything, or nothing says what is right
    trainer_settings = {**alone_in(config["trainer"]), **own}
    trainer = build_trainer(
        trainer_settings, config["training"], settings["epochs"], folder, [logger], callbacks, alone=True
    )
    with keyboard_interrupts():
        trainer.fit(module, source, ckpt_path=resumed, weights_only=True)
    metrics = metrics_of(trainer, "train/term/")
    weights: dict[str, nn.Module] = {"backbone": backbone}
    if scored:
        metrics |= metrics_of(trainer, "val/")
        trainer.test(module, source, verbose=False)
        metrics |= metrics_of(trainer, "test/")
    if learns_labels(config):
        weights["head"] = head
    return Learned(
        {name: {k: v.cpu() for k, v in part.state_dict().items()} for name, part in weights.items()},
        metrics,
        flops_of_pretraining(config, data, backbone, head),
    )


def metrics_of(trainer: pl.Trainer, begin: str) -> dict[str, float]:
    """The last values of what is logged under names that begin so."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(begin)}


def flops_of_pretraining(
    config: Mapping[str, Any], data: TransferDataModule, backbone: Backbone, head: nn.Module
) -> float:
    """Floating-point operations that pretraining takes, by its config; backbone and head are only looked at."""
    settings = config["pretrain"]
    source = source_alone(data, config, backbone, build(settings["objective"]), build_terms(settings))
    phases = build(settings["strategy"]).phases(settings["epochs"], backbone)
    return flops.of_fit(backbone, {"source": head}, phases, source)


def alone_in(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of `trainer` for one process."""
    return {**trainer, "devices": 1, "num_nodes": 1, "strategy": "auto", "sync_batchnorm": False}


def learns_labels(config: Mapping[str, Any]) -> bool:
    """Whether pretraining trains the source's head, by its labels or by a term that teaches it."""
    terms = build_terms(config["pretrain"]).values()
    return looks_at_labels(config) or any(term.teaches_head for term in terms)


def looks_at_labels(config: Mapping[str, Any]) -> bool:
    """Whether pretraining looks at labels of the source; a term that has texts of its samples does not."""
    settings = config["pretrain"]
    return "source" in build(settings["objective"]).domains() or any(
        term.teaches_head and term.text is None for term in build_terms(settings).values()
    )


def keeps_source_head(config: Mapping[str, Any]) -> bool:
    """Whether the run begins with the source's head: one that learned, on the features that the run begins with."""
    return learns_labels(config) and not shares_embedding(config["backbone"])


def context_of(data: TransferDataModule, module: TransferModule) -> TermContext:
    """What pretraining's terms can ask for: nothing is pretrained yet, and the source stands for the target."""
    return TermContext(
        backbone=module.backbone,
        heads=dict(module.heads.items()),
        target_head=module.head("source"),
        pretrained_head=None,
        pretrained=False,
        num_classes=len(classes) if (classes := data.classes("source")) else None,
        samples=lambda: data.plain_batches("source", "train"),
        source_samples=None,
        sources=data.domains["source"].train.sources,
        domains={"source": data.domains["source"]},
        key="pretrain.term",
        source_loss=functools.partial(module.domain_loss, "source"),
    )


def source_alone(
    data: TransferDataModule,
    config: Mapping[str, Any],
    backbone: Backbone,
    objective: Objective,
    terms: Mapping[str, Term],
) -> TransferDataModule:
    """The same data module, drawing from the source only, with pretraining's own batch size, augmentation and seed.

    Raises GraftError where objective or terms want the target too, or labels that are not there.
    """
    settings, source = config["pretrain"], copy.copy(data)
    if (trained := trained_domains(objective, terms)) != ("source",):
        wanted = " and ".join(trained) or "nothing"
        raise GraftError(
            f"pretrain.objective and pretrain.term train on {wanted}: pretraining has the source alone. Set "
            "pretrain.objective.alpha=1, or null with a term such as pretrain=simclr."
        )
    if objective.domains() and data.domains["source"].train.labels is None:
        raise GraftError(
            "pretrain.objective weighs a loss of labels, and pretraining's data have no labels. Set "
            "pretrain.objective.alpha=null with a term, such as pretrain=simclr."
        )
    source.train_domains = source.eval_domains = source.test_domains = ("source",)
    source.epoch, source.views = "source", {}
    source.source_batch_size = settings["batch_size"]
    source.augment, source.seed = settings["augment"], settings["seed"]
    choose_views(source, terms, backbone)
    source.set_input(backbone.input_spec)
    return source
