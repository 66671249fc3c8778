"""What a strategy cannot be meant with: weights, epochs, a head that grows, a closed fit."""

from collections.abc import Iterator, Mapping
from typing import Any

from graft.config.conflicts.names import Names, mixing_keys, several_processes, without_target_loss
from graft.config.text import shown
from graft.weights.files import HERE, WORDS


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
    if kept is not None and weights in HERE:
        yield (
            f"`head.weights={kept}` with `backbone.weights={weights}`: pretraining gives other features; use "
            f"backbone.weights={kept} too"
        )
    if names.says("strategy", "matches_flops", False):
        if weights not in HERE or (weights == "source" and config["data"].get("source") is None):
            data = " without source data" if weights == "source" else ""
            yield (
                f"`strategy={names['strategy']}` with `backbone.weights={shown(weights)}`{data}: it trains as long as "
                "pretraining and training together, and pretraining's FLOPs are not known; use strategy=scratch, or "
                "pretrain here (backbone.weights=source, target)"
            )
        if config["data"]["batch_size"] == "auto":
            yield (
                f"`strategy={names['strategy']}` with `data.batch_size=auto`: the batch size decides how many steps "
                "it takes; give the number"
            )
    if epochs < (least := names.says("strategy", "min_epochs", 1)):
        yield f"`training.epochs={epochs}` with `strategy={names['strategy']}`: its phases need {least} epochs"


def growth_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """A head that shall get new classes, and what it cannot be meant with."""
    if not config["head"].get("grow"):
        return
    key, run, data = "`head.grow=true`", config["head"].get("weights"), config["data"]
    if run is None:
        yield f"{key} with `head.weights=null`: no head could grow; give head.weights=<run> backbone.weights=<run>"
        return
    weights = config["backbone"]["weights"]
    if weights in (None, *WORDS) or str(weights).startswith("pip:"):
        yield (
            f"{key} with `backbone.weights={shown(weights)}`: the rows of a head belong to the features that it "
            f"learned on; use backbone.weights={run} too"
        )
    if not names.says("strategy", "pretrained", True):
        yield f"{key} with `strategy={names['strategy']}`: it begins with random features; use another strategy"
    if names.says("strategy", "keeps_classifier", False):
        yield f"{key} with `strategy={names['strategy']}`: the rows of new classes would stay random; use another"
    if (task := names["task"]) != "multiclass":
        yield f"{key} with `task={task}`: only one class a sample has a row for each; use task=multiclass"
    if config["source_task"] is not None:
        yield f"{key} with `source_task`: both sides share the head; leave source_task out"
    if config["head"].get("sharing") == "separate":
        yield f"{key} with `head.sharing=separate`: both sides share the classes, and the head; use head.sharing=auto"
    if names.says("objective", "fixed_heads", ()):
        yield f"{key} with `objective={names['objective']}`: it keeps a head of the source's; use objective=alpha"
    if data.get("label_sets", "closed") != "closed":
        yield f"{key} with `data.label_sets={data['label_sets']}`: it says which classes there are; use closed"
    if data.get("target_setting") == "unsupervised":
        yield f"{key} with `data.target_setting=unsupervised`: new classes are learned from labels; use supervised"
    elif alpha := without_target_loss(config["objective"]):
        yield f"{key} with `{alpha}`: no label of a new class would train; use objective.alpha below 1"


def head_of_closed_fit(names: Names) -> dict[str, tuple[str, bool]]:
    """The head that a closed fit solves for, what is given, and whether that is it."""
    fills = names.says("strategy", "fills_cache", False)
    suited = ("caches",) if fills else ("linear_in_features", "adds_names")
    fine = any(names.says("head", one, False) for one in suited)
    return {f"head={'tip_adapter' if fills else 'linear'}": (f"head={names['head']}", fine)}


def closed_fit_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """What a closed fit of the head cannot take: it is one linear layer on the features of one domain's samples."""
    if not names.says("strategy", "closed_fit", False):
        return
    data, training, objective = config["data"], config["training"], config["objective"]
    alpha, chooses = objective.get("alpha"), names.says("selection", "domains", ())
    chooses = chooses and not names.says("selection", "holds_out", False)
    suits = {
        **head_of_closed_fit(names),
        "objective=alpha": (f"objective={names['objective']}", "alpha" in objective),
        "objective.alpha=0 or 1": (f"objective.alpha={alpha}", alpha in (0, 1) or "alpha" not in objective),
        "objective.alpha_end=null": ("objective.alpha_end", objective.get("alpha_end") in (None, alpha)),
        "another task": (f"task={names['task']}", not names.says("task", "rejects", False)),
        "task.loss=mse": (f"task.loss={config['task'].get('loss')}", config["task"].get("loss", "mse") == "mse"),
        "task.label_smoothing=0": ("task.label_smoothing", not config["task"].get("label_smoothing")),
        "selection=target_val": (f"selection={names['selection']}", chooses),
        "term=[]": (f"term=[{','.join(config.get('term') or {})}]", not config.get("term")),
        "bn=joint": (f"bn={config['bn']}", config["bn"] != "domain_specific"),
        "averaging=none": ("averaging", not config["averaging"]),
        "data.target_setting=supervised": ("data.target_setting=semi", data.get("target_setting") != "semi"),
        "data.balance=weights": (f"data.balance={data['balance']}", data["balance"] != "sampler"),
        "training.wise_ft_alphas=null": ("training.wise_ft_alphas", training["wise_ft_alphas"] is None),
        "optimizer.lr=1e-3": ("optimizer.lr=auto", config["optimizer"]["lr"] != "auto"),
        "save.ledger=null": ("save.ledger", config["save"]["ledger"] is None),
        "one process": ("several processes", not several_processes(config["trainer"])),
        "unmixed samples": (mixing_keys(config), not mixing_keys(config)),
    }
    for instead, (given, fine) in suits.items():
        if not fine:
            yield (
                f"`{given}` with `strategy={names['strategy']}`: it solves for one linear head on the features of one "
                f"domain; use {instead}, or strategy=frozen"
            )
