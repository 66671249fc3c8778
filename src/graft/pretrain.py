"""Pretraining on the source (`backbone.weights=source`), cached by the content of everything it depends on.

It is the same training with everything but the source left out, so it needs no code of its own but the cache.
"""

import copy
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import pytorch_lightning as pl
import torch
from filelock import FileLock
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import nn

from graft.backbones.base import Backbone
from graft.build import build
from graft.cache import key
from graft.callbacks.interrupt import keyboard_interrupts
from graft.callbacks.progress import Progress
from graft.config.types import Count, Part, Positive, Seed
from graft.data.module import Augment, TransferDataModule
from graft.errors import Interrupted
from graft.module import TransferModule
from graft.objective import AlphaWeighted
from graft.optim import BaseOptimizerSettings
from graft.rates.uniform import Uniform
from graft.strategies.scratch import Scratch
from graft.tasks import Task
from graft.trainer import build_trainer

# Source files that decide what pretraining computes: a change in one of them makes a new cache entry.
CODE = (
    "backbones",
    "cache",
    "columns.py",
    "data",
    "inputs.py",
    "rates/uniform.py",
    "strategies/base.py",
    "strategies/full.py",
    "strategies/scratch.py",
    "terms/base.py",
    *("heads.py", "metrics.py", "module.py", "objective.py", "optim.py", "pretrain.py", "schedules.py", "tasks.py"),
    "trainer.py",
)
WITHOUT_EFFECT = ("accelerator", "profiler", "detect_anomaly", "max_time")  # keys of the trainer
PACKAGES = ("torch", "torchvision", "timm", "pytorch-lightning")


class PretrainOptimizer(BaseOptimizerSettings):
    """The keys of `pretrain.optimizer`: its rate is a number, as nothing looks for one."""

    lr: Positive


class PretrainSettings(TypedDict):
    """The keys of `pretrain`."""

    epochs: Count
    batch_size: Count
    augment: Augment
    seed: Seed
    optimizer: PretrainOptimizer
    scheduler: Part


@dataclass(frozen=True)
class Pretrained:
    """What pretraining on the source reached."""

    metrics: dict[str, float]  # `<stage>/source/<metric>` right after pretraining
    folder: Path
    tensors: int  # of the backbone
    not_learned: list[str]  # those that the source says nothing of, which stay random
    seconds: float  # spent in this run; 0 when it came from the cache


def pretrain_on_source(
    config: Mapping[str, Any],
    data: TransferDataModule,
    backbone: Backbone,
    head: nn.Module,
    task: Task,
    build_both: Callable[[], tuple[Backbone, nn.Module]],
) -> Pretrained:
    """Load into backbone and head what training on the source gives; computed once for all jobs that share it.

    `build_both` makes the two anew, so that they start from pretraining's own seed and not from the run's.

    Concurrent jobs wait for the first; a killed one leaves nothing that looks finished. The processes of one
    distributed job train together, so that only its main process waits.
    """
    started = time.perf_counter()
    folder = Path(config["paths"]["cache_dir"]) / "pretrained" / cache_key(config, data, backbone)
    folder.parent.mkdir(parents=True, exist_ok=True)
    main_process = rank_zero_only.rank == 0
    with FileLock(f"{folder}.lock") if main_process else nullcontext():
        cached = folder.exists()
        if not cached:
            if main_process:
                print(f"Pretraining on the source ({data.domains['source'].name}), kept in {folder}", flush=True)
            unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix="unfinished-"))
            try:
                trainer = train_on_source(config, data, build_both, task, unfinished)
                if main_process:
                    unfinished.rename(folder)
                trainer.strategy.barrier("pretrained weights are in the cache")
            except Interrupted:
                raise Interrupted(
                    "Interrupted while pretraining on the source: the next run starts it again."
                ) from None
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    weights = torch.load(folder / "weights.pt", map_location="cpu", weights_only=True)
    metrics = json.loads((folder / "metrics.json").read_text())
    seconds = 0.0 if cached else time.perf_counter() - started
    new = backbone.not_learned_from(data.domains["source"].backbone_arguments)  # stay as they were
    learned = {k: v for k, v in weights["backbone"].items() if k.removeprefix("network.") not in new}
    backbone.load_state_dict({**backbone.state_dict(), **learned})
    head.load_state_dict(weights["head"])
    backbone.set_classifier(copy.deepcopy(head))
    return Pretrained(metrics, folder, len(weights["backbone"]), new, seconds)


def cache_key(config: Mapping[str, Any], data: TransferDataModule, backbone: Backbone) -> str:
    """Name of the cache entry: a hash over data, architecture, training settings, library versions and code."""
    depends_on = {
        "data": data.domains["source"].fingerprint,
        "split_seed": config["data"]["split_seed"],
        "balance": config["data"]["balance"],
        "backbone": {k: v for k, v in config["backbone"].items() if k != "weights"},
        "input": repr(backbone.input_spec),
        "head": {k: v for k, v in config["head"].items() if k != "sharing"},
        "task": config["source_task"] or config["task"],
        "pretrain": config["pretrain"],
        "training": {k: config["training"][k] for k in ("gradient_clip_norm", "accumulate_batches", "channels_last")},
        "trainer": {key: value for key, value in config["trainer"].items() if key not in WITHOUT_EFFECT},
        "matmul": torch.get_float32_matmul_precision(),
        "packages": key.versions(PACKAGES),
        "code": key.code_hash(CODE),
    }
    return key.cache_key(depends_on)


def train_on_source(
    config: Mapping[str, Any],
    data: TransferDataModule,
    build_both: Callable[[], tuple[Backbone, nn.Module]],
    task: Task,
    folder: Path,
) -> pl.Trainer:
    """Train from random weights on the source alone and write weights and metrics into `folder`."""
    settings = config["pretrain"]
    pl.seed_everything(settings["seed"], verbose=False)
    backbone, head = build_both()
    module = TransferModule(
        backbone=backbone,
        heads={"source": head},
        tasks={"source": task},
        outputs={"source": data.num_outputs("source", task)},
        objective=AlphaWeighted(alpha=1.0),
        strategy=Scratch(),
        rates=Uniform(),
        schedule=build(settings["scheduler"]),
        optimizer=settings["optimizer"],
        class_weights={"source": data.class_weights("source")},
        seed=settings["seed"],
    )
    logger = CSVLogger(folder, name="", version="")
    callbacks = [build(settings) for settings in config["callbacks"].values() if settings]
    for callback in callbacks:
        if isinstance(callback, Progress):
            callback.label = "pretraining"
    trainer_settings = {**config["trainer"], "max_time": None}  # half a pretraining is not for other runs
    trainer = build_trainer(trainer_settings, config["training"], settings["epochs"], folder, [logger], callbacks)
    source = source_alone(data, settings, backbone)
    with keyboard_interrupts():
        trainer.fit(module, source)
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
    trainer.test(module, source, verbose=False)
    metrics |= {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("test/")}
    if trainer.is_global_zero:
        torch.save({"backbone": backbone.state_dict(), "head": head.state_dict()}, folder / "weights.pt")
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2))
    return trainer


def source_alone(data: TransferDataModule, settings: Mapping[str, Any], backbone: Backbone) -> TransferDataModule:
    """The same data module, drawing from the source only, with pretraining's own batch size, augmentation and seed."""
    source = copy.copy(data)
    source.train_domains = source.eval_domains = source.test_domains = ("source",)
    source.epoch = "source"
    source.source_batch_size = settings["batch_size"]
    source.augment, source.seed = settings["augment"], settings["seed"]
    source.set_input(backbone.input_spec)
    return source
