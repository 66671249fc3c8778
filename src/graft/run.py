"""One run, from a composed config to results: the only place that knows the order of things."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch import nn

from graft import results, tracking
from graft.backbones.base import Backbone
from graft.backbones.weights import load_weights
from graft.callbacks.interrupt import keyboard_interrupts
from graft.callbacks.throughput import Throughput
from graft.data.module import TransferDataModule
from graft.errors import GraftError, Interrupted
from graft.module import SHARED, TransferModule
from graft.objective import Objective
from graft.pretrain import pretrain_on_source
from graft.report import plots, tables
from graft.selection import SelectionRule, require_domain
from graft.tasks import Task
from graft.trainer import build_trainer


def train(cfg: DictConfig) -> dict[str, Any]:
    """Run one experiment and return its results, which are also in `results.json` of the run folder.

    Raises GraftError for a user's mistake and Interrupted after a Ctrl-C, once what was reached is saved.
    """
    started = time.perf_counter()
    config = OmegaConf.to_container(cfg, resolve=True)
    context = job_context()
    folder = Path(config["paths"]["run_dir"])
    resumed = checkpoint_to_resume(config["resume"], folder)
    if config["training"]["threads"]:
        torch.set_num_threads(config["training"]["threads"])

    pl.seed_everything(config["seed"], verbose=False)
    data: TransferDataModule = instantiate(cfg.data)
    data.load()
    tasks = build_tasks(cfg, data)
    strategy, objective, rule = instantiate(cfg.strategy), instantiate(cfg.objective), instantiate(cfg.selection)
    choose_domains(data, objective, rule)

    backbone = build_backbone(cfg, data)
    weights = config["backbone"]["weights"] if strategy.pretrained else None
    weights_report = None if weights in (None, "source") else load_weights(backbone, weights)
    data.set_input(backbone.input_spec)
    heads = build_heads(cfg, data, backbone, tasks, objective)
    pretrained = None
    if objective.fixed_heads and weights != "source":
        raise GraftError(
            f"This objective keeps the {objective.fixed_heads[0]} head as it was pretrained, but nothing is: "
            f"backbone.weights={weights}, strategy={config['strategy']['_target_'].split('.')[-2]}. "
            "Set backbone.weights=source and a strategy that starts from it, or use objective=additive."
        )
    if weights == "source":
        pretrained = pretrain_on_source(config, data, backbone, heads.get("source", heads.get(SHARED)), tasks["source"])
        pl.seed_everything(config["seed"], verbose=False)
    elif "source" in heads and "source" not in data.train_domains:
        data.test_domains = ("target",)  # a source head that never learned has nothing to say about the source

    module = TransferModule(
        backbone=backbone,
        heads=heads,
        tasks=tasks,
        outputs={domain: data.num_outputs(domain, task) for domain, task in tasks.items()},
        objective=objective,
        strategy=strategy,
        rates=instantiate(cfg.rates),
        schedule=instantiate(cfg.scheduler),
        optimizer=config["optimizer"],
        monitor=rule.monitor(tasks["target"]),
        bn=config["bn"],
        class_weights={domain: data.class_weights(domain) for domain in data.train_domains},
        seed=config["seed"],
        config=config,
    )
    epochs = config["training"]["epochs"]
    report = {
        "status": "failed",  # until the end was reached
        "name": config["name"],
        "overrides": context["overrides"],
        "data": data.summary(),
        "weights": results.describe_weights(weights, weights_report, pretrained),
        "parameters": results.describe_parameters(module.parameter_table(epochs)),
        "seeds": {
            "train": config["seed"],
            "split": config["data"]["split_seed"],
            "subset": config["data"]["subset_seed"],
            "pretrain": config["pretrain"]["seed"] if pretrained else None,
        },
        "git": results.git_state(Path(config["paths"]["root"])),
        "versions": results.versions(),
    }
    loggers = tracking.build_loggers(
        config["logger"],
        run_dir=folder,
        name=config["name"],
        config=config,
        tags=config["tags"],
        group=context["sweep"],
        job_type=cfg.strategy._target_.split(".")[-2],
    )
    throughput = Throughput()
    callbacks = [*build_callbacks(cfg, folder, rule, tasks["target"]), throughput]
    trainer = build_trainer(config["trainer"], config["training"], epochs, folder, loggers, callbacks)
    if trainer.is_global_zero:
        tables.print_setup(report)

    try:
        with keyboard_interrupts():
            trainer.fit(module, data, ckpt_path=resumed, weights_only=True)
            selected = load_selected(module, rule, folder, trainer)
            report["selection"] = results.describe_selection(rule, tasks["target"], selected, data)
            report["metrics"] = selected["metrics"]
            test_started = time.perf_counter()
            trainer.test(module, data, verbose=False)
            report["metrics"] |= {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("test/")}
            report["metrics"] |= results.forgetting(report["metrics"], pretrained, tasks.get("source"))
            report["score"] = results.score(report["metrics"], tasks["target"])
            report["confusion"] = results.confusion(module, data)
        report["status"] = "done"
    except Interrupted:
        report["status"] = "interrupted"
        raise
    finally:
        now = time.perf_counter()
        report["time"] = {
            "total_s": now - started,
            "pretrain_s": pretrained.seconds if pretrained else 0.0,
            "fit_s": throughput.fit_s,
            "test_s": now - test_started if report["status"] == "done" else None,
        }
        report |= {"samples_per_s": throughput.samples_per_s, "peak_memory_mb": throughput.peak_memory_mb}
        report["wandb"] = tracking.wandb_info(loggers)
        if trainer.is_global_zero:
            results.write(report, folder)
            tracking.log_results(loggers, report)
        tracking.finish(loggers, ok=report["status"] == "done")

    if trainer.is_global_zero:
        write_plots(report, folder)
        tables.print_results(report, folder)
    return report


def job_context() -> dict[str, Any]:
    """Overrides of this job and the sweep it belongs to, as Hydra knows them; empty when called from a notebook."""
    if not HydraConfig.initialized():
        return {"overrides": [], "sweep": None}
    hydra = HydraConfig.get()
    sweep = Path(hydra.sweep.dir).name if hydra.mode == RunMode.MULTIRUN else None
    return {"overrides": OmegaConf.to_container(hydra.overrides.task, resolve=False), "sweep": sweep}


def write_plots(report: Mapping[str, Any], folder: Path) -> None:
    """Confusion matrices and training curves as pictures in the run folder."""
    for name, confusion in report["confusion"].items():
        path = folder / f"confusion_{name.replace('/', '_')}.png"
        plots.confusion_matrix(confusion["matrix"], confusion["classes"], path)
    plots.curves(folder / "metrics.csv", folder / "curves.png")


def checkpoint_to_resume(resume: bool | str | None, folder: Path) -> Path | None:
    """The checkpoint that `resume` names: this run folder's last one, or a path."""
    if resume in (None, False):
        return None
    checkpoint = folder / "checkpoints" / "last.ckpt" if resume is True else Path(resume)
    if not checkpoint.is_file():
        raise GraftError(
            f"resume={resume}: there is no checkpoint at {checkpoint}. Give the path of a .ckpt file, or name the "
            "folder of the run to go on with: resume=true hydra.run.dir=logs/<name>/runs/<time>_<id>"
        )
    return checkpoint


def build_tasks(cfg: DictConfig, data: TransferDataModule) -> dict[str, Task]:
    """What is predicted on each domain that has data."""
    tasks = {"target": instantiate(cfg.task)}
    if "source" in data.domains:
        tasks["source"] = instantiate(cfg.source_task or cfg.task)
    return tasks


def choose_domains(data: TransferDataModule, objective: Objective, rule: SelectionRule) -> None:
    """Load only the domains that the objective trains on, and validate on those, the target and the rule's."""
    require_domain(rule, tuple(data.domains))
    missing = [domain for domain in objective.domains() if domain not in data.domains]
    if missing:
        raise GraftError(
            f"The objective weighs the {missing[0]}'s loss, but data.{missing[0]} is null. "
            "Set objective.alpha=0 or choose source data with data/domain@data.source=<name>."
        )
    data.train_domains = objective.domains()
    needed = {"target", rule.domain, *data.train_domains}
    data.eval_domains = tuple(domain for domain in data.domains if domain in needed)


def build_backbone(cfg: DictConfig, data: TransferDataModule) -> Backbone:
    """The backbone with random weights, for the data's channels where the config leaves them open."""
    channels = data.channels if cfg.backbone.channels == "auto" else cfg.backbone.channels
    settings = {key: value for key, value in cfg.backbone.items() if key not in ("weights", "channels")}
    return instantiate(settings, channels=channels)


def build_heads(
    cfg: DictConfig,
    data: TransferDataModule,
    backbone: Backbone,
    tasks: Mapping[str, Task],
    objective: Objective,
) -> dict[str, nn.Module]:
    """One head `shared` by domains with the same classes, else one for each; a fixed head is never shared."""
    settings = {key: value for key, value in cfg.head.items() if key != "sharing"}
    sharing = cfg.head.sharing
    if sharing == "auto":
        sharing = "shared" if data.same_classes and not objective.fixed_heads else "separate"
    if sharing == "shared" and objective.fixed_heads:
        raise GraftError(
            f"head.sharing=shared: this objective keeps the {objective.fixed_heads[0]} head fixed and trains the "
            "other. Use head.sharing=separate."
        )
    if sharing == "shared" and "source" in data.domains and not data.same_classes:
        classes = {domain: data.domains[domain].classes for domain in ("source", "target")}
        raise GraftError(
            f"head.sharing=shared needs the same classes on both sides, but the source has {classes['source']} "
            f"and the target {classes['target']}. Use head.sharing=separate."
        )
    names = {SHARED: "target"} if sharing == "shared" and "source" in data.domains else {d: d for d in tasks}
    return {
        name: instantiate(settings, feature_size=backbone.feature_size, outputs=data.num_outputs(domain, tasks[domain]))
        for name, domain in names.items()
    }


def build_callbacks(cfg: DictConfig, folder: Path, rule: SelectionRule, task: Task) -> list[Callback]:
    """The config's callbacks, then two checkpoints: the rule's choice, and the last epoch to resume from."""
    callbacks = [instantiate(settings) for settings in cfg.callbacks.values() if settings]
    if cfg.trainer.get("fast_dev_run") or cfg.trainer.get("enable_checkpointing") is False:
        return callbacks
    to = {"dirpath": folder / "checkpoints", "enable_version_counter": False, "auto_insert_metric_name": False}
    if monitor := rule.monitor(task):
        mode = "max" if task.higher_is_better else "min"
        callbacks.append(ModelCheckpoint(filename="best", monitor=monitor, mode=mode, save_weights_only=True, **to))
    callbacks.append(ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **to))
    return callbacks


def load_selected(module: TransferModule, rule: SelectionRule, folder: Path, trainer: pl.Trainer) -> dict[str, Any]:
    """Put the selected checkpoint's weights into the module; returns its epoch and validation metrics."""
    best = folder / "checkpoints" / "best.ckpt"
    if rule.domain is None or not best.is_file():
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        return {"epoch": trainer.current_epoch - 1, "metrics": metrics}
    checkpoint = torch.load(best, map_location="cpu", weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])
    return {"epoch": checkpoint["epoch"], "metrics": checkpoint["metrics"]}
