"""What a compression cannot be meant with."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from graft.config.conflicts.names import Names, several_processes
from graft.config.facts import attribute


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
