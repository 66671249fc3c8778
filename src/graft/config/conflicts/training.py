"""What the options of training cannot be meant with."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from graft.config.conflicts.names import Names, mixing_keys, several_processes
from graft.config.facts import attribute
from graft.config.text import shown


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


ADAMS = ("torch.optim.Adam", "torch.optim.AdamW")


def tuning_contradictions(config: Mapping[str, Any]) -> Iterator[str]:
    """What cannot be looked for as asked."""
    tuning, trainer = config["tuning"], config["trainer"]
    if tuning["low"] >= tuning["high"]:
        yield f"`tuning.low={tuning['low']}` with `tuning.high={tuning['high']}`: the rate rises from low to high"
    if config["tune"] and config["resume"]:
        yield f"`tune={config['tune']}` with `resume={shown(config['resume'])}`: it trains nothing that could go on"
    if config["optimizer"]["lr"] == "default" and (kind := config["optimizer"]["_target_"]) not in ADAMS:
        yield (
            f"`optimizer.lr=default` with `optimizer._target_={kind}`: the defaults were measured with Adam and AdamW; "
            "give a number, or optimizer.lr=auto"
        )
    if config["data"]["batch_size"] == "auto" and several_processes(trainer):
        yield (
            "`data.batch_size=auto` with several processes: it is looked for on one; "
            "find it with trainer=gpu or trainer=cpu, then give the number"
        )


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


def sharding_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """What needs the whole network in every process, which `trainer=fsdp` leaves in none."""
    if (strategy := config["trainer"]["strategy"]) != "fsdp":
        return
    where = f"with `trainer.strategy={strategy}`"
    if terms := [*(config.get("term") or {})]:
        yield f"`term={terms[0]}` {where}: terms look at whole networks; leave it out, or use trainer=ddp"
    if config["averaging"]:
        yield f"`averaging={names['averaging']}` {where}: it is kept of whole weights; use averaging=none"
    if config["training"]["compile"]:
        yield f"`training.compile=true` {where}: it compiles the backbone as a whole; use training.compile=false"
    if names["task"] in ("seq2seq", "detection"):
        yield f"`task={names['task']}` {where}: its head does more than one forward pass; use trainer=ddp"


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
