"""Keys that are right by themselves and cannot be meant together."""

import difflib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graft.config.facts import attribute
from graft.config.text import shown
from graft.data.domain_names import wrong_names
from graft.errors import GraftError
from graft.model.place import folder_of, task_of


def contradictions(config: Mapping[str, Any], choices: Mapping[str, str | None]) -> Iterator[str]:
    """Keys that are right by themselves and cannot be meant together."""
    names = Names(config, choices)
    yield from strategy_contradictions(config, names)
    yield from source_contradictions(config, names)
    yield from domain_contradictions(config["data"])
    yield from objective_contradictions(config, names)
    yield from term_contradictions(config, names)
    yield from label_contradictions(config, names)
    yield from label_set_contradictions(config, names)
    yield from table_contradictions(config, names)
    yield from training_contradictions(config, names)
    yield from selection_contradictions(config, names)
    yield from ledger_contradictions(config, names)
    yield from save_contradictions(config["save"])
    yield from evaluation_contradictions(config, names)
    yield from tuning_contradictions(config)
    yield from averaging_contradictions(config, names)
    yield from teacher_contradictions(config, names)
    yield from step_contradictions(config, names)
    yield from compress_contradictions(config, names)
    yield from missing_runs(config)


@dataclass(frozen=True)
class Names:
    """How the chosen option of a group is called, and what its class says of itself."""

    config: Mapping[str, Any]
    choices: Mapping[str, str | None]

    def __getitem__(self, group: str) -> str:
        """The option's name as Hydra knows it, else that of its class."""
        return self.choices.get(group) or self.config[group]["_target_"].rpartition(".")[2]

    def says(self, group: str, attribute_name: str, default: Any) -> Any:
        """An attribute of the class that a group's `_target_` names."""
        return attribute(self.config[group].get("_target_", ""), attribute_name, default)


def strategy_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """A strategy and weights or epochs that do not suit it."""
    weights, epochs = config["backbone"]["weights"], config["training"]["epochs"]
    if weights is None and names.says("strategy", "freezes", False):
        yield (
            f"`strategy={names['strategy']}` with `backbone.weights=null`: it keeps part of a random backbone as it "
            "is, which teaches nothing; give pretrained weights (backbone.weights=source, imagenet, ...) or use "
            "strategy=scratch"
        )
    elif weights is None and names.says("strategy", "needs_pretrained", False):
        yield (
            f"`strategy={names['strategy']}` with `backbone.weights=null`: it needs pretrained weights, and what it "
            "reaches from random ones says nothing about transfer; give some (backbone.weights=source, imagenet, ...) "
            "or use strategy=scratch"
        )
    kept = config["head"].get("weights")
    if kept is None and weights not in (None, "source") and names.says("strategy", "keeps_classifier", False):
        yield (
            f"`strategy={names['strategy']}` with `head.weights=null`: it keeps a classifier that has learned; give "
            "head.weights=<run folder> backbone.weights=<run folder>"
        )
    if kept is not None and weights == "source":
        yield (
            f"`head.weights={kept}` with `backbone.weights=source`: pretraining trains a head of its own; use "
            f"backbone.weights={kept} too"
        )
    if names.says("strategy", "matches_flops", False):
        if weights != "source" or config["data"].get("source") is None:
            data = "" if weights != "source" else " without source data"
            yield (
                f"`strategy={names['strategy']}` with `backbone.weights={shown(weights)}`{data}: it trains as long as "
                "pretraining and training together, and pretraining's FLOPs are not known; use strategy=scratch, or "
                "pretrain here (backbone.weights=source)"
            )
        if config["data"]["batch_size"] == "auto":
            yield (
                f"`strategy={names['strategy']}` with `data.batch_size=auto`: the batch size decides how many steps "
                "it takes; give the number"
            )
    if epochs < (least := names.says("strategy", "min_epochs", 1)):
        yield f"`training.epochs={epochs}` with `strategy={names['strategy']}`: its phases need {least} epochs"


def source_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """What needs source data where there are none."""
    data = config["data"]
    if data.get("source") is not None:
        return
    if config["backbone"]["weights"] == "source" and names.says("strategy", "pretrained", True):
        yield (
            "`backbone.weights=source` without source data: choose some (data/domain@data.source=...), "
            "or other weights (backbone.weights=imagenet, null, ...)"
        )
    if "source" in names.says("selection", "domains", ()):
        yield f"`selection={names['selection']}` without source data: use selection=target_val or selection=last"
    if config["report"]["proxy_a_distance"] is True:
        yield "`report.proxy_a_distance=true` without source data: use report.proxy_a_distance=auto"
    if data.get("epoch") == "source":
        yield "`data.epoch=source` without source data: use data.epoch=target"


def domain_contradictions(data: Mapping[str, Any]) -> Iterator[str]:
    """Names of domains that are not there, or on both sides."""
    if "target_domain" in data:
        yield from wrong_names(data["root"], data["sources"], data["target_domain"])


def objective_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """An objective that weighs losses which are not there."""
    objective, data = config["objective"], config["data"]
    source, labeled = data.get("source"), data.get("target_setting") != "unsupervised"
    if "alpha" in objective:
        alphas = [alpha for alpha in (objective["alpha"], objective["alpha_end"]) if alpha is not None]
        if source is None and any(alphas):
            yield (
                f"`objective.alpha={' to '.join(map(str, alphas))}` without source data: "
                "use objective.alpha=0 or choose source data (data/domain@data.source=...)"
            )
        draws = [one or {} for one in (*(config.get("term") or {}).values(), config["compress"])]
        if not alphas and not any(attribute(one.get("_target_", ""), "domains", ()) for one in draws):
            yield (
                "`objective.alpha=null` without a term that draws from a domain: nothing gives a loss; add one, such "
                "as term=[mean_teacher], or give alpha a number"
            )
        if not labeled and any(alpha != 1 for alpha in alphas):
            yield (
                f"`data.target_setting=unsupervised` with `objective.alpha={' to '.join(map(str, alphas))}`: "
                "an unlabelled target has no loss; use objective.alpha=1"
            )
        return
    name = names["objective"]
    if source is None:
        yield f"`objective={name}` without source data: use objective=alpha or choose data/domain@data.source=..."
    if not labeled:
        yield f"`data.target_setting=unsupervised` with `objective={name}`: use objective=alpha objective.alpha=1"


def term_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """Terms without what their classes say that they need."""
    labeled, weights = config["data"].get("target_setting") != "unsupervised", config["backbone"]["weights"]
    scratch = not names.says("strategy", "pretrained", True)
    semi = config["data"].get("target_setting") == "semi"
    for term, settings in (config.get("term") or {}).items():
        says = functools.partial(attribute, (settings or {}).get("_target_", ""))
        if says("needs_pretrained", False) and (scratch or weights is None):
            reason = f"strategy={names['strategy']}" if scratch else "backbone.weights=null"
            yield f"`term={term}` with `{reason}`: it keeps to pretrained weights, and there are none; leave it out"
        if says("needs_labels", False) and not labeled:
            yield f"`term={term}` with `data.target_setting=unsupervised`: it needs the target's labels; leave it out"
        elif says("needs_labels", False) and semi:
            yield (
                f"`term={term}` with `data.target_setting=semi`: it needs every target sample's label; leave it out, "
                "or use data.target_setting=supervised"
            )
        elif says("needs_labels", False) and (alpha := without_target_loss(config["objective"])):
            yield f"`term={term}` with `{alpha}`: it learns from the target's labels; use objective.alpha below 1"
        if says("needs_multiclass", False) and names.says("task", "name", "multiclass") != "multiclass":
            yield f"`term={term}` with `task={names['task']}`: it compares class probabilities; use task=multiclass"
        if says("needs_linear_head", False) and not names.says("head", "linear_in_features", False):
            yield f"`term={term}` with `head={names['head']}`: it needs one vector a class; use head=linear"
        if says("needs_hard_labels", False) and (mixing := mixing_keys(config)):
            yield f"`{mixing}` with `term={term}`: it needs one class a sample; leave one of the two out"
        if says("views", ()) and (mixing := mixing_keys(config)):
            yield f"`{mixing}` with `term={term}`: its views are of unmixed samples; leave one of the two out"
        if "source" in says("domains", ()) and config["data"].get("source") is None:
            yield (
                f"`term={term}` without source data: it trains on them; choose some (data/domain@data.source=...), or "
                "leave the term out"
            )
        if says("needs_several_sources", False) and one_source(config["data"].get("source")):
            yield (
                f"`term={term}` with one source: it compares several; name two or more, such as data=domains "
                "data.sources=[photo,cartoon], or leave the term out"
            )
        if says("aligns", False) and not embeddings_train(config, names):
            yield (
                f"`term={term}` with `strategy={names['strategy']} head={names['head']}`: nothing that it could move "
                "trains; use head=bottleneck, or a strategy that trains the backbone"
            )
        weighted = config["data"]["balance"] == "weights"
        if says("needs_several_sources", False) and weighted and several_processes(config["trainer"]):
            yield (
                f"`term={term}` with `data.balance=weights` and several processes: they add up sources' losses by "
                "samples, not by weights; use data.balance=sampler or one process (trainer=gpu, trainer=cpu)"
            )
        if says("needs_domain_statistics", False) and config["bn"] != "domain_specific":
            yield f"`bn={config['bn']}` with `term={term}`: it adapts one domain's statistics; use bn=domain_specific"
        if says("replaces_batchnorm", False) and config["trainer"].get("sync_batchnorm"):
            yield f"`term={term}` with `trainer.sync_batchnorm=true`: synchronising replaces its layers"


def teacher_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """A teacher that is not there, or of another task, and what cannot be learned from one."""
    compress, training = config["compress"], config["training"]
    if compress.get("teacher") is None:
        return
    try:
        folder = folder_of(Path(compress["teacher"]))
    except GraftError as error:
        yield f"`compress.teacher`: {error}"
        return
    theirs = attribute(task_of(folder), "name", "")
    if theirs and theirs != (own := names.says("task", "name", theirs)):
        yield (
            f"`compress.teacher={compress['teacher']}` with `task={names['task']}`: it was trained for task={theirs}; "
            f"give a teacher of task={own}, or use task={theirs}"
        )
    if training["progressive_resizing"]["initial_scale"] is not None:
        yield (
            f"`training.progressive_resizing.initial_scale={training['progressive_resizing']['initial_scale']}` with "
            f"`compress={names['compress']}`: a teacher takes images of its own size; set it to null"
        )
    matched = [one for one in compress["match"] if one != "logits"]
    if (
        matched
        and not names.says("strategy", "trains_backbone", True)
        and config["strategy"].get("train_bn") is not True
    ):
        yield (
            f"`compress.match=[{','.join(compress['match'])}]` with `strategy={names['strategy']}`: {matched[0]} "
            "come from the backbone, which does not train; use compress.match=[logits] or another strategy"
        )


def one_source(source: Mapping[str, Any] | None) -> bool:
    """Whether source data are of one domain, as far as the config says."""
    return source is not None and ("names" not in source or len(source["names"] or ()) == 1)


def embeddings_train(config: Mapping[str, Any], names: Names) -> bool:
    """Whether anything that makes the vectors which terms align trains: the backbone, or the head's bottleneck."""
    backbone = names.says("strategy", "trains_backbone", True) or config["strategy"].get("train_bn") is True
    return backbone or names.says("head", "has_bottleneck", False)


def without_target_loss(objective: Mapping[str, Any]) -> str:
    """The keys by which the target's loss never counts, as one would type them; empty where it does."""
    alpha, end = objective.get("alpha", 0.0), objective.get("alpha_end")
    if alpha is None or (alpha == 1 and end in (None, 1)):
        return f"objective.alpha={shown(alpha)}" + (f" objective.alpha_end={shown(end)}" if end is not None else "")
    return ""


def mixing_keys(config: Mapping[str, Any]) -> str:
    """The keys that mix samples, as one would type them; empty where none is set."""
    training = config["training"]
    return " ".join(f"training.{k}={training[k]}" for k in ("mixup_alpha", "cutmix_alpha") if training[k] is not None)


def missing_runs(config: Mapping[str, Any]) -> Iterator[str]:
    """Runs to go on from that are not there."""
    resume, soup = config.get("resume"), config["soup"]
    if isinstance(resume, str) and resume != "auto" and not Path(resume).is_file():
        yield (
            f"`resume={resume}`: there is no such checkpoint; resume=true takes the run folder's last one, resume=auto "
            "does where there is one"
        )
    if soup is not None and not Path(soup).is_dir():
        yield f"`soup={soup}`: there is no such folder; give a sweep's, logs/<name>/sweeps/<time>_<id>"


def label_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """Labels of another kind than the task predicts."""
    needed = {"numbers": "numbers need task=regression", "multilabel": "several labels need task=multilabel"}
    for side, group in (("target", "task"), ("source", "source_task" if config["source_task"] else "task")):
        kind = (config["data"][side] or {}).get("label_kind")
        takes = names.says(group, "label_kind", "classes")
        if kind in needed and kind != takes:
            yield f"`data.{side}.label_kind={kind}` with `{group}={names[group]}`: {needed[kind]}"
        elif kind not in (None, takes):
            key = f"data.{side}.label_kind"
            yield f"`{group}={names[group]}` with `{key}={kind}`: it needs {key}={takes}"
    data = config["data"]
    if data.get("target_setting") == "semi":
        if data["labels_per_class"] is None:
            yield "`data.target_setting=semi` with `data.labels_per_class=null`: say how many labels a class there are"
        if mixing := mixing_keys(config):
            yield f"`data.target_setting=semi` with `{mixing}`: unlabelled samples cannot be mixed; leave one out"
        if names.says("selection", "holds_out", False):
            yield (
                f"`data.target_setting=semi` with `selection={names['selection']}`: folds hold out labelled samples "
                "alone; use another rule"
            )
    elif data.get("unlabelled_batch_size") is not None:
        yield "`data.unlabelled_batch_size` without `data.target_setting=semi`: set data.unlabelled_batch_size=null"
    kinds = {(data[side] or {}).get("label_kind", "classes") for side in ("target", "source")}
    if (data["balance"] == "sampler" and kinds != {"classes"}) or (data["balance"] == "weights" and "numbers" in kinds):
        yield f"`data.balance={data['balance']}` with labels that are not one class a sample: use data.balance=none"
    if data["labels_per_class"] is not None and (data["target"] or {}).get("label_kind", "classes") != "classes":
        yield "`data.labels_per_class` with labels that are not one class a sample: set data.labels_per_class=null"


def label_set_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """Classes that one side lacks, with a task or labels that do not suit them."""
    data, task = config["data"], names["task"]
    sets, rejects = data.get("label_sets", "closed"), names.says("task", "rejects", False)
    if rejects and sets != "open":
        yield f"`task={task}` with `data.label_sets={sets}`: no sample is unknown; use data.label_sets=open"
    if data.get("source_classes") is not None and data.get("source") is None:
        yield "`data.source_classes` without source data: leave it out, or choose some (data/domain@data.source=...)"
    if sets == "closed":
        return
    key = f"`data.label_sets={sets}`"
    if data.get("source") is None:
        yield f"{key} without source data: it compares the two sides' classes; use data.label_sets=closed"
    if config["source_task"] is not None:
        yield f"{key} with `source_task`: both sides need one task; leave source_task out"
    if sets == "open" and not rejects:
        yield f"{key} with `task={task}`: it never says unknown; use task=open_set"
    if sets == "open" and data.get("target_setting") != "unsupervised":
        yield (
            f"{key} with `data.target_setting={data.get('target_setting')}`: nothing can learn from labels of unknown "
            "classes; use data.target_setting=unsupervised"
        )
    if sets == "partial" and names.says("task", "name", "multiclass") != "multiclass":
        yield f"{key} with `task={task}`: the target lacks some of several classes; use task=multiclass"


def table_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """A table and what is not for one: backbones and options of images."""
    data, training = config["data"], config["training"]
    is_table = attribute(data["target"].get("_target_", ""), "modality", "image") == "table"
    if not is_table:
        if "columns" in config["backbone"]:
            yield "`backbone` takes tables, and `data.target` is none: use another backbone, or data=table"
        return
    if "columns" not in config["backbone"]:
        yield "`data.target` is a table, and this backbone takes none: use backbone=mlp or backbone=ft_transformer"
    for key, value, off in (
        ("data.augment", data["augment"], "none"),
        ("data.test_shifts", data["test_shifts"], []),
        ("training.mixup_alpha", training["mixup_alpha"], None),
        ("training.cutmix_alpha", training["cutmix_alpha"], None),
        ("training.progressive_resizing.initial_scale", training["progressive_resizing"]["initial_scale"], None),
    ):
        if value != off:
            yield f"`{key}={shown(value)}` with a table: it is for images; use {key}={shown(off)}"


def selection_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """Nothing to be patient about, labels that cannot be held out, a metric that validation does not compute."""
    if names.says("selection", "holds_out", False):
        if config["data"].get("target_setting") == "unsupervised":
            yield (
                f"`selection={names['selection']}` with `data.target_setting=unsupervised`: there are no labels to "
                "hold out; use selection=entropy, source_val or last"
            )
        if several_processes(config["trainer"]):
            yield (
                f"`selection={names['selection']}` with several processes: its folds train on one; use trainer=gpu or "
                "trainer=cpu"
            )
    metric, domains = config["selection"].get("metric"), names.says("selection", "domains", ())
    if (patience := config["training"]["patience"]) and (not domains or names.says("selection", "holds_out", False)):
        yield (
            f"`training.patience={patience}` with `selection={names['selection']}`: it follows no validation split "
            "whose metric could stop improving; use selection=target_val, or leave the patience out"
        )
    if metric is None:
        return
    task = (config["source_task"] if domains == ("source",) else None) or config["task"]
    main = task.get("main_metric") or attribute(task["_target_"], "main_metric", "acc")
    known = list(dict.fromkeys([*attribute(task["_target_"], "validated", ()), main]))
    if metric not in known:
        close = difflib.get_close_matches(str(metric), known, n=1)
        hint = f"did you mean {close[0]}? It has" if close else "it has"
        yield (
            f"`selection.metric={shown(metric)}` with `task={names['task']}`: validation does not compute it; {hint} "
            f"{', '.join(known)}"
        )


def save_contradictions(save: Mapping[str, Any]) -> Iterator[str]:
    """Something to keep in a model that is not kept."""
    if save["neighbours"] and save["model"] == "none":
        yield "`save.neighbours=true` with `save.model=none`: the model keeps them; use save.model=best"


def ledger_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """A ledger without a source or classes, or whose candidates would not be fixed beforehand."""
    if (number := config["save"]["ledger"]) is None:
        return
    if config["data"].get("source") is None:
        yield f"`save.ledger={number}` without source data: its rules compare the two sides; leave save.ledger out"
    elif config["objective"].get("alpha") == 0 and config["objective"].get("alpha_end") in (None, 0):
        yield (
            f"`save.ledger={number}` with `objective.alpha=0`: its rules judge networks that learn from the source; "
            "use objective.alpha above 0, or leave save.ledger out"
        )
    if (kind := names.says("task", "label_kind", "classes")) != "classes":
        yield f"`save.ledger={number}` with `task={names['task']}`: its rules judge one class a sample, not {kind}"
    if patience := config["training"]["patience"]:
        yield (
            f"`save.ledger={number}` with `training.patience={patience}`: its candidates are epochs fixed beforehand; "
            "use training.patience=null"
        )


def evaluation_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """Folds that are not there, and a choice in each fold by a rule that chooses nothing."""
    data = config["data"]
    evaluation, folds, fold = (data.get(key) for key in ("evaluation", "folds", "fold"))
    given = " ".join(f"data.{key}={data[key]}" for key in ("folds", "fold") if data.get(key) is not None)
    if evaluation is None:
        if given:
            yield f"`{given}` without `data.evaluation`: `evaluation=kfold folds=5` runs every fold"
        return
    if folds is None or fold is None:
        yield f"`data.evaluation={evaluation}` without `data.folds` and `data.fold`: `evaluation={evaluation}` runs all"
    elif not fold < folds or folds < 2:
        yield f"`{given}`: there must be 2 folds at least, and they count from 0"
    chooses = names.says("selection", "domains", ()) or names.says("selection", "holds_out", False)
    if evaluation == "nested" and not chooses:
        yield (
            f"`evaluation=nested` with `selection={names['selection']}`: each fold chooses a configuration by "
            "validation; use selection=target_val or budget, or evaluation=kfold"
        )


def tuning_contradictions(config: Mapping[str, Any]) -> Iterator[str]:
    """What cannot be looked for as asked."""
    tuning, trainer = config["tuning"], config["trainer"]
    if tuning["low"] >= tuning["high"]:
        yield f"`tuning.low={tuning['low']}` with `tuning.high={tuning['high']}`: the rate rises from low to high"
    if config["tune"] and config["resume"]:
        yield f"`tune={config['tune']}` with `resume={shown(config['resume'])}`: it trains nothing that could go on"
    if config["data"]["batch_size"] == "auto" and several_processes(trainer):
        yield (
            "`data.batch_size=auto` with several processes: it is looked for on one; "
            "find it with trainer=gpu or trainer=cpu, then give the number"
        )


def several_processes(trainer: Mapping[str, Any]) -> bool:
    """Whether a run has, or may have, more than one."""
    devices = trainer["devices"]
    several = devices > 1 if isinstance(devices, int) else isinstance(devices, list) and len(devices) > 1
    return several or trainer["strategy"] != "auto" or trainer.get("num_nodes", 1) > 1


def training_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """Lengths, schedules and processes that cannot be meant together."""
    epochs, every = config["training"]["epochs"], config["training"]["validate_every_epochs"]
    if every < epochs and epochs % every:
        yield (
            f"`training.validate_every_epochs={every}` with `training.epochs={epochs}`: the last epoch would not be "
            "validated; use a divisor"
        )
    if config["rates"].get("unit") == "block" and not names.says("backbone", "counts_blocks", False):
        yield (
            f"`rates.unit=block` with `backbone={names['backbone']}`: only timm's say what their blocks are; "
            "use rates.unit=stage, or the same architecture of timm's (backbone=timm backbone.name=resnet50.a1_in1k)"
        )
    if names.says("scheduler", "follows_metric", False):
        scheduler = names["scheduler"]
        if not names.says("selection", "domains", ("target",)):
            yield (
                f"`scheduler={scheduler}` with `selection={names['selection']}`: it follows the selection rule's "
                "metric, and there is none"
            )
        if min(every, epochs) > 1:
            yield f"`scheduler={scheduler}` with `training.validate_every_epochs={every}`: it takes every epoch; use 1"
        if names.says("strategy", "own_schedules", False):
            yield (
                f"`scheduler={scheduler}` with `strategy={names['strategy']}`: its phases have schedules of their own; "
                "use cosine or step"
            )
    pretraining = config["pretrain"]["scheduler"]["_target_"]
    if attribute(pretraining, "follows_metric", False):
        name = names.choices.get("scheduler@pretrain.scheduler") or pretraining.rpartition(".")[2].lower()
        yield f"`scheduler@pretrain.scheduler={name}`: pretraining selects nothing to follow; use cosine or one_cycle"
    if config["trainer"].get("sync_batchnorm") and config["trainer"].get("accelerator") == "cpu":
        yield (
            "`trainer.sync_batchnorm=true` with `trainer.accelerator=cpu`: it is for GPUs; use "
            "trainer.sync_batchnorm=false"
        )
    if config.get("bn") == "domain_specific" and names.says("head", "has_bottleneck", False):
        yield (
            f"`bn=domain_specific` with `head={names['head']}`: its BatchNorm keeps one set of statistics; use "
            "bn=joint or bn=separate"
        )
    if config.get("bn") == "domain_specific" and config["trainer"].get("sync_batchnorm"):
        yield "`bn=domain_specific` with `trainer.sync_batchnorm=true`: synchronised layers keep one set of statistics"


def averaging_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """Averages of weights that cannot be made, or not chosen on validation."""
    alphas, weights = config["training"]["wise_ft_alphas"], config["backbone"]["weights"]
    if alphas is not None:
        key = f"training.wise_ft_alphas={shown(alphas)}"
        if not names.says("selection", "domains", ("target",)):
            yield f"`{key}` with `selection={names['selection']}`: there is no metric to choose by; use target_val"
        if weights is None or not names.says("strategy", "pretrained", True):
            why = "backbone.weights=null" if weights is None else f"strategy={names['strategy']}"
            yield f"`{key}` with `{why}`: it goes from pretrained weights to the tuned ones; give some to start from"
    chooses = names.says("selection", "domains", ("target",)) and not names.says("selection", "holds_out", False)
    if names.says("averaging", "follows_metric", False) and not chooses:
        yield (
            f"`averaging={names['averaging']}` with `selection={names['selection']}`: there is no validation metric by "
            "which it could choose epochs; use selection=target_val, or averaging=swa"
        )
    if names.says("averaging", "chooses_weights", False):
        if names.says("selection", "domains", ("target",)) or names.says("selection", "holds_out", False):
            yield (
                f"`averaging={names['averaging']}` with `selection={names['selection']}`: its window of the validation "
                "loss chooses the weights, and no epoch is left to choose; use selection=last"
            )
        domain, data = config["averaging"]["domain"], config["data"]
        if domain == "source" and data.get("source") is None:
            yield "`averaging.domain=source` without source data: use averaging.domain=target"
        if data.get("target_setting") == "unsupervised" and (domain == "target" or data.get("source") is None):
            yield (
                f"`averaging.domain={shown(domain)}` with `data.target_setting=unsupervised`: the target's loss needs "
                "its labels; use averaging.domain=source with source data"
            )
        if (number := config["save"]["ledger"]) is not None:
            yield (
                f"`save.ledger={number}` with `averaging={names['averaging']}`: its candidates are epochs, not their "
                "mean; leave save.ledger out"
            )
    if config["averaging"].get("lr_fraction") is not None and names.says("scheduler", "follows_metric", False):
        yield (
            f"`scheduler={names['scheduler']}` with `averaging={names['averaging']}`: both set the learning rate of "
            "the last epochs; use averaging.lr_fraction=null or another scheduler"
        )
    if config["soup"] is not None and config["resume"] is not None:
        yield "`resume` with `soup`: a soup trains nothing that could go on; leave resume out"


def step_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """What happens to a training batch (graft.training.batch_transforms) and cannot be meant with the rest."""
    training = config["training"]
    if (mixing := mixing_keys(config)) and not names.says("task", "soft_labels", True):
        yield (
            f"`{mixing}` with `task={names['task']}`: mixing needs labels of which a sample can have a part; "
            "use task=multiclass or multilabel"
        )
    if training["compile"] and training["gradient_checkpointing"]:
        yield (
            "`training.compile=true` with `training.gradient_checkpointing=true`: torch cannot compile blocks that are "
            "computed again; use one of the two"
        )
    resizing = training["progressive_resizing"]
    if resizing["initial_scale"] is not None and resizing["growth_begins"] > resizing["full_size_at"]:
        yield (
            f"`training.progressive_resizing.growth_begins={resizing['growth_begins']}` with "
            f"`full_size_at={resizing['full_size_at']}`: images cannot be full before they grow"
        )


def compress_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """A compression beside what changes, shares or averages the same weights otherwise."""
    settings = config["compress"]
    if not settings:
        return
    name, training = f"compress={names['compress']}", config["training"]
    says = functools.partial(names.says, "compress")
    if not says("takes_adapters", True) and names.says("strategy", "adds_layers", False):
        yield f"`{name}` with `strategy={names['strategy']}`: it takes no layers of a strategy's; use strategy=full"
    if says("needs_training_backbone", False) and not names.says("strategy", "trains_backbone", True):
        yield f"`{name}` with `strategy={names['strategy']}`: it prunes weights that train; use strategy=full"
    if says("changes_weights", False) and training["wise_ft_alphas"] is not None:
        yield f"`{name}` with `training.wise_ft_alphas`: weights between two networks are not compressed; leave one out"
    start, steps = settings.get("start_epoch", 0), settings.get("steps", 1)
    if start + steps > training["epochs"]:
        yield (
            f"`compress.start_epoch={start}` with `training.epochs={training['epochs']}`: {name} has to be done before "
            "the last epoch, which can be selected then"
        )
    if settings.get("start", 0) >= settings.get("end", 1):
        yield f"`compress.start={settings['start']}` with `compress.end={settings['end']}`: zeros come in between"
    if settings.get("importance") == "taylor" and config["data"].get("target_setting") == "unsupervised":
        yield (
            "`compress.importance=taylor` with `data.target_setting=unsupervised`: it needs labels; use "
            "compress.importance=magnitude"
        )
    if says("replaces_parameters", False):
        if training["gradient_checkpointing"]:
            yield f"`{name}` with `training.gradient_checkpointing=true`: its graph is hidden; use false"
        if config["bn"] == "domain_specific":
            yield f"`{name}` with `bn=domain_specific`: a domain's statistics have no channels to lose; use bn=joint"
        if start + steps > 1:
            yield from pruned_in_training(config, names, f"{name} compress.start_epoch={start} compress.steps={steps}")
    if says("rounds", False) and training["compile"]:
        yield f"`{name}` with `training.compile=true`: it looks at values in each step; use false"
    if says("changes_network_in_training", False) and names.says("averaging", "chooses_weights", False):
        yield f"`{name}` with `averaging={names['averaging']}`: its window may begin before; use averaging=none"


def pruned_in_training(config: Mapping[str, Any], names: Names, given: str) -> Iterator[str]:
    """What holds on to the network's tensors while pruning replaces them in training."""
    before = "use compress.start_epoch=0 compress.steps=1, which prunes before training"
    if config["averaging"] and not names.says("averaging", "follows_metric", False):
        yield f"`{given}` with `averaging={names['averaging']}`: an average has one shape; {before}"
    if config["training"]["compile"]:
        yield f"`{given}` with `training.compile=true`: what is compiled has one shape; {before}"
    if several_processes(config["trainer"]):
        yield f"`{given}` with several processes: they share gradients of one shape; {before}"
    for term, settings in (config.get("term") or {}).items():
        if attribute((settings or {}).get("_target_", ""), "needs_pretrained", False):
            yield f"`{given}` with `term={term}`: it compares with pretrained weights of one shape; {before}"
