"""What a selection rule, a ledger and cross-validation cannot be meant with."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from graft.config.conflicts.names import Names, several_processes
from graft.config.facts import attribute
from graft.config.text import shown


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


def refit_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """Validation samples that train, where something is to be validated on them or they cannot be joined."""
    data, training = config["data"], config["training"]
    if not data.get("refit"):
        return
    averaging = (config["averaging"] or {}).get("_target_", "").rpartition(".")[2]
    suits = {
        "selection=last": (f"selection={names['selection']}", not names.says("selection", "domains", ())),
        "data.target_setting=supervised": ("data.target_setting", data["target_setting"] == "supervised"),
        "another task": (f"task={names['task']}", names.says("task", "label_kind", "classes") != "boxes"),
        "averaging=none, ema or swa": ("averaging", averaging not in ("GreedySoup", "SWAD")),
        "training.wise_ft_alphas=null": ("training.wise_ft_alphas", training["wise_ft_alphas"] is None),
        "save.ledger=null": ("save.ledger", config["save"]["ledger"] is None),
    }
    for instead, (given, fine) in suits.items():
        if not fine:
            yield f"`data.refit=true` with `{given}`: no sample is left to validate on; use {instead}"


def save_contradictions(save: Mapping[str, Any]) -> Iterator[str]:
    """Something to keep in a model that is not kept."""
    if save["neighbours"] and save["model"] == "none":
        yield "`save.neighbours=true` with `save.model=none`: the model keeps them; use save.model=best"
    if save.get("checkpoints") == "best" and save["model"] != "best":
        yield (
            f"`save.checkpoints=best` with `save.model={save['model']}`: they stay with the best job's model; use "
            "save.model=best"
        )


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
