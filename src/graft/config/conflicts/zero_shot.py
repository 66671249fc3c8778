"""What a run that uses no label cannot be meant with, and a head that knows classes by their names."""

from collections.abc import Iterator, Mapping
from typing import Any

from graft.config.conflicts.names import Names, several_processes
from graft.config.facts import attribute


def zero_shot_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """A head of names that shall grow, and a strategy that trains nothing with what would train something."""
    head, named = config["head"], names.says("head", "names_classes", False)
    if named and head.get("grow"):
        yield "`head.grow=true` with `head=class_names`: names are enough for new classes; use head.grow=false"
    if names.says("head", "caches", False):
        yield from cache_contradictions(config, names)
    if names.says("head", "adds_names", False):
        yield from added_names_contradictions(config, names)
        return
    if not names.says("strategy", "trains_nothing", False):
        return
    key = f"`strategy={names['strategy']}`"
    if not named:
        yield f"{key} with `head={names['head']}`: its rows would be random; use head=class_names"
    elif not learned_names(config):
        yield (
            f"{key} with `head.weights=null` and a head that learns: nothing has taught it; begin with a run that has "
            "(head.weights=<run> backbone.weights=<run>), pretrain on pairs (pretrain=clip backbone.weights=source), "
            "or take towers that know each other (backbone=clip_image head/tower=encoder head.projection=none)"
        )
    training = config["training"]
    suits = {
        "term=[]": (f"term=[{','.join(config.get('term') or {})}]", not config.get("term")),
        "averaging=none": ("averaging", not config["averaging"]),
        "compress=none": ("compress", not config["compress"]),
        "training.wise_ft_alphas=null": ("training.wise_ft_alphas", training["wise_ft_alphas"] is None),
        "tune=null": (f"tune={config['tune']}", config["tune"] is None),
        "optimizer.lr=1e-3": ("optimizer.lr=auto", config["optimizer"]["lr"] != "auto"),
        "save.ledger=null": ("save.ledger", config["save"]["ledger"] is None),
        "a rule of a metric": (f"selection={names['selection']}", not names.says("selection", "holds_out", False)),
        "one process": ("several processes", not several_processes(config["trainer"])),
    }
    for instead, (given, fine) in suits.items():
        if not fine:
            yield f"`{given}` with {key}: nothing trains, and nothing is chosen; use {instead}"


def cache_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """What a head that keeps the training samples' features cannot be meant with."""
    if names.says("strategy", "trains_backbone", True):
        yield (
            f"`strategy={names['strategy']}` with `head={names['head']}`: it keeps features of a backbone that stays; "
            "use strategy=tip_adapter or frozen"
        )
    if config["data"].get("target_setting") != "supervised":
        yield (
            f"`data.target_setting={config['data'].get('target_setting')}` with `head={names['head']}`: it keeps "
            "labelled samples; use data.target_setting=supervised"
        )
    if names.says("strategy", "trains_nothing", False):
        yield f"`strategy={names['strategy']}` with `head={names['head']}`: samples have labels; use head=class_names"
    if attribute((config["head"].get("tower") or {}).get("_target_", ""), "learns", True):
        yield (
            f"`head={names['head']}` with a tower that learns: nothing trains it; use head/tower=encoder "
            "head.tower.name=<folder>"
        )


def added_names_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """What a head whose names are samples of its fit cannot be meant with."""
    key = f"`head={names['head']}`"
    if not names.says("strategy", "closed_fit", False):
        yield (
            f"`strategy={names['strategy']}` with {key}: names are samples of strategy=probe alone; use that, or "
            "head=class_names"
        )
    source_head = (config.get("source_head") or {}).get("_target_", "")
    if config["backbone"]["weights"] == "source":
        if not attribute(source_head, "names_classes", False) or attribute(source_head, "adds_names", False):
            yield (
                f"`backbone.weights=source` with {key}: nothing of it learns in pretraining; use "
                "+head@source_head=class_names with the same tower, or a finished run of head=class_names "
                "(head.weights=<run> backbone.weights=<run>)"
            )
    elif not learned_names(config):
        yield (
            f"`head.weights=null` with {key} that learned nothing: its names would be random; begin with a run of "
            "head=class_names (head.weights=<run> backbone.weights=<run>), or take towers that know each other "
            "(backbone=clip_image head/tower=encoder head.projection=none)"
        )


def learned_names(config: Mapping[str, Any]) -> bool:
    """Whether a head of names needs no training: what learns in it has learned elsewhere, or nothing does."""
    head = config["head"]
    tower = (head.get("tower") or {}).get("_target_", "")
    if head.get("weights") is not None or config["backbone"]["weights"] == "source":
        return True
    return head.get("projection") == "none" and not attribute(tower, "learns", True)
