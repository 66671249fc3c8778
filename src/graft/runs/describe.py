"""What is put down of a run in its record: setup, cost, selection, scores."""

import functools
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from graft.data.module import TransferDataModule
from graft.experiment import Experiment
from graft.module import TransferModule
from graft.packages import versions_of
from graft.pretrain import Pretrained
from graft.runs.context import RunContext, run_context
from graft.runs.recipe import keys_as_recipe
from graft.runs.record import FAILED, FORMAT
from graft.selection.budget import Budget
from graft.tasks.base import Task
from graft.tasks.open_set import OpenSet
from graft.training import flops
from graft.training.fitting import Fitting, averaging_word
from graft.training.growth import Growth

NOTHING = "none, as nothing was trained"  # that could be chosen among
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "timm", "numpy")


def of_setup(experiment: Experiment, context: RunContext, tuned: dict[str, Any]) -> dict[str, Any]:
    """What is known of a run before it trains; `status` says failed until the end was reached."""
    config, module = experiment.config, experiment.module
    return {
        "format": FORMAT,
        "status": FAILED,
        "name": config["name"],
        "overrides": context.overrides,
        "data": of_data(experiment),
        "labels": of_labels(experiment),
        "weights": of_weights(experiment),
        "ignored_weights": None if module.strategy.pretrained else config["backbone"]["weights"],
        "parameters": of_parameters(module.parameter_table(experiment.epochs)),
        "phases": of_phases(experiment),
        "terms": list(module.terms),
        "settings": experiment.decided,
        "tuning": tuned,
        "note": module.strategy.note,
        "averaging": averaging_word(config),
        "precision": config["trainer"]["precision"],
        "threads": torch.get_num_threads(),
        "baselines": experiment.baselines,
        "evaluation": evaluation_of(config),
        "seeds": {
            "train": config["seed"],
            "split": config["data"]["split_seed"],
            "subset": config["data"]["subset_seed"],
            "pretrain": config["pretrain"]["seed"] if experiment.pretrained else None,
        },
        "git": git_state(Path(config["paths"]["root"])),
        "versions": versions(),
    }


def evaluation_of(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Which fold is tested, of how many and of what kind; None for one split."""
    found = {key: config["data"].get(key) for key in ("evaluation", "fold", "folds")}
    return found if found["evaluation"] else None


def of_data(experiment: Experiment) -> dict[str, Any]:
    """The data module's summary, and whether anything learns from the labels of a domain."""
    used = {*experiment.data.train_domains, *([experiment.pretrained.domain] if experiment.pretrained else [])}
    return {name: values | {"trained_on": name in used} for name, values in experiment.data.summary().items()}


def of_phases(experiment: Experiment) -> list[dict[str, Any]]:
    """The strategy's phases, each with what an epoch of it takes."""
    module, data = experiment.module, experiment.data
    heads = {domain: module.head(domain) for domain in data.train_domains}
    by_epoch = flops.per_epoch(module.backbone, heads, module.phases(experiment.epochs), data)
    table = module.phase_table(experiment.epochs)
    return [row | {"flops_per_epoch": one} for row, one in zip(table, by_epoch, strict=True)]


def of_compute(experiment: Experiment, trainer: pl.Trainer, phases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Optimizer steps on the target, and FLOPs; those of pretraining are None where others did it."""
    done, pretrained = trainer.current_epoch, experiment.pretrained
    target = 0.0
    for phase in phases:
        first, last = phase["epochs"]
        target += phase["flops_per_epoch"] * max(0, min(last + 1, done) - first)
    before = pretrained.flops if pretrained else None if experiment.weights else 0.0
    total = None if before is None else before + target
    return {
        "target_steps": trainer.global_step,
        "flops": {"pretraining": before, "target": target, "total": total},
        "matches_flops": experiment.module.strategy.matches_flops,
    }


def of_cost(
    experiment: Experiment, fitting: Fitting, started: float, phases: Sequence[Mapping[str, Any]], done: bool
) -> dict[str, Any]:
    """What a run took, whether it came to its end or not; times in seconds."""
    now, rule = time.perf_counter(), experiment.rule
    return {
        "cost": of_compute(experiment, fitting.trainer, phases),
        "time": {
            "total_s": now - started,
            "pretrain_s": experiment.pretrained.seconds if experiment.pretrained else 0.0,
            "folds_s": rule.choice.seconds if isinstance(rule, Budget) and rule.choice else 0.0,
            "fit_s": fitting.throughput.fit_s,
            "train_s": fitting.throughput.train_s,
            "validation_s": fitting.throughput.validation_s,
            "test_s": now - fitting.test_started if done else None,
        },
        "nonfinite": fitting.nonfinite.describe(),
        "feature_cache": fitting.features.describe(),
        "skipped_in_training": {name: dict(found) for name, found in experiment.data.skipped.items() if found},
        "samples_per_s": fitting.throughput.samples_per_s,
        "peak_memory_mb": fitting.throughput.peak_memory_mb,
        "recalibrated_bn": fitting.recalibration.times if fitting.recalibration else 0,
        "compile": fitting.compilation and fitting.compilation.measured,
    }


def forgetting(metrics: Mapping[str, float], pretrained: Pretrained | None, task: Task | None) -> dict[str, float]:
    """Source score after pretraining minus after adaptation, by the same source head; absent without pretraining."""
    if pretrained is None or task is None:
        return {}
    name = f"test/source/{task.main_metric}"
    if name not in metrics or name not in pretrained.metrics:
        return {}
    lost = pretrained.metrics[name] - metrics[name]
    return {"forgetting": lost if task.higher_is_better else -lost, "pretrain/" + name: pretrained.metrics[name]}


def of_weights(experiment: Experiment) -> dict[str, Any] | None:
    """Where the backbone's weights came from and how many tensors matched; some the source may not have taught."""
    report, pretrained = experiment.loaded, experiment.pretrained
    if report is not None:
        return asdict(report)
    if pretrained is not None:
        how = f"pretrained in {pretrained.seconds:.0f} s" if pretrained.seconds else "cached"
        return {
            "source": f"{pretrained.domain} ({how})",
            "folder": str(pretrained.folder),
            "matched": pretrained.tensors,
            "total": pretrained.tensors,
            "missing": pretrained.not_learned,
            "warning": pretrained.warning or None,
            "pretraining": of_pretraining(experiment),
            "unexpected": [],
            "adapted": [],
        }
    return None


def of_pretraining(experiment: Experiment) -> dict[str, Any]:
    """What pretraining learned from, for how long, and its terms' mean losses in its last epoch."""
    pretrained, settings, data = experiment.pretrained, experiment.config["pretrain"], experiment.data
    return {
        "domain": pretrained.domain,
        "data": data.domains[pretrained.domain].name,
        "samples": pretrained.samples,
        "labels": pretrained.labels,
        "terms": list(settings.get("term") or ()),
        "epochs": settings["epochs"],
        "loss": {k: value for k, value in pretrained.metrics.items() if k.startswith("train/term/")},
    }


def of_labels(experiment: Experiment) -> dict[str, int]:
    """How many labels of the target train, and how many others choose the checkpoint."""
    rule, target = experiment.rule, experiment.data.domains["target"]
    if experiment.module.strategy.trains_nothing:
        return {"training": 0, "choosing": 0}
    looks = rule.uses_target_labels and "target" in rule.domains
    looks = looks or bool(experiment.swad and experiment.swad.domain == "target")
    return {"training": experiment.data.labelled("target"), "choosing": len(target.val) if looks else 0}


def of_selection(experiment: Experiment, selected: Mapping[str, Any]) -> dict[str, Any]:
    """The rule that chose the checkpoint; `oracle` when it used labels of a target that counts as unlabelled."""
    rule, tasks = experiment.rule, experiment.module.tasks
    monitor = rule.monitor(tasks) if selected["rule"] == rule.name else None
    return {
        "rule": NOTHING if experiment.module.strategy.trains_nothing else selected["rule"],
        "monitor": monitor,
        "mode": None if monitor is None else "max" if rule.higher_is_better(tasks) else "min",
        "value": selected["metrics"].get(monitor),
        "epoch": selected["epoch"],
        "oracle": monitor is not None and rule.uses_target_labels and experiment.data.target_setting == "unsupervised",
        **(of_folds(experiment, rule) if isinstance(rule, Budget) else {}),
    }


def of_folds(experiment: Experiment, rule: Budget) -> dict[str, Any]:
    """How labels were held out, what each fold reads at the chosen epoch, and which keys are as the recipe has them."""
    return {
        "note": rule.note,
        "folds": rule.choice.folds if rule.choice else [],
        "as_recipe": keys_as_recipe(run_context().overrides),
    }


def of_parameters(groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Parameter counts, total and trainable, beside the table by part."""
    return {
        "total": sum(group["parameters"] for group in groups),
        "trainable": sum(group["trainable"] for group in groups),
        "groups": groups,
    }


def of_score(metrics: Mapping[str, float], task: Task) -> dict[str, Any]:
    """The one number that sweeps are ordered by: the task's main metric on the target's test split."""
    name = f"test/target/{task.main_metric}"
    return {"metric": name, "value": metrics[name], "higher_is_better": task.higher_is_better}


def of_rejection(task: Task) -> dict[str, Any]:
    """Of an open set, by what samples are rejected, and from where on; empty for other tasks."""
    if not isinstance(task, OpenSet):
        return {}
    found = {"by": task.rejection, "threshold": task.threshold, "fraction": task.rejected_fraction}
    return {"rejection": found}


def of_fusion(module: TransferModule) -> dict[str, Any]:
    """Of a fusion its modalities, and the mean of each one's gates over the test samples; empty for other backbones."""
    if not module.backbone.parts:
        return {}
    return {"fusion": {"parts": list(module.backbone.parts), "gates": module.gates or None}}


def of_confusion(module: TransferModule, data: TransferDataModule) -> dict[str, Any]:
    """Confusion matrices by stage and domain, rows are true classes."""
    domains = {name: name.split("/")[1] for name in module.confusion}
    return {
        name: {
            "matrix": matrix.tolist(),
            "classes": list(module.tasks[domains[name]].named(data.classes(domains[name]) or ())),
        }
        for name, matrix in module.confusion.items()
    }


def of_growth(growth: Growth, data: TransferDataModule, confusion: Mapping[str, Any]) -> dict[str, Any]:
    """What became of each class of a head that has grown, on the test splits of all sides; on the main process."""
    matrices = [confusion[f"test/{domain}"]["matrix"] for domain in data.test_domains]
    return growth.describe(data.classes("target") or (), matrices)


@functools.cache
def git_state(root: Path) -> dict[str, Any]:
    """Commit of the code and whether it has uncommitted changes, as first seen; empty outside a repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


@functools.cache
def versions() -> dict[str, str]:
    """Versions of the packages that decide the numbers."""
    return versions_of(PACKAGES)
