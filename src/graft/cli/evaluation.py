"""`evaluation=kfold folds=5` as the sweep that it is: a job for each fold of the target's samples."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graft.errors import GraftError

EVALUATIONS = ("kfold", "repeated", "nested", "leave_one_group_out")
BY_GROUP = "leave_one_group_out"
REPEATING = ("repeated", "nested")  # which may go through all folds several times
FOLDS, REPEATS, MOST = 5, {"repeated": 3, "nested": 1}, 1000
KEY = "data.evaluation"
SHOWING = ("--cfg", "-c", "--info", "-i")  # flags with which Hydra runs nothing


def written_out(words: Sequence[str]) -> list[str]:
    """The words with `evaluation=kfold folds=5` as the keys that it sets; GraftError for what cannot be meant.

    How many folds `leave_one_group_out` has is in the data, see `planned`.
    """
    given = {name: word for word in words if (name := word.partition("=")[0]) in ("evaluation", "folds", "repeats")}
    if not given:
        return list(words)
    if "evaluation" not in given:
        word = next(iter(given.values()))
        raise GraftError(f"`{word}` belongs to a cross-validation: evaluation=kfold {word}")
    evaluation = given["evaluation"].partition("=")[2]
    if evaluation not in EVALUATIONS:
        close = difflib.get_close_matches(evaluation, EVALUATIONS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise GraftError(f"`evaluation={evaluation}`: must be {' or '.join(EVALUATIONS)}{hint}")
    keys = {KEY: evaluation}
    if evaluation in REPEATING and ("repeats" in given or REPEATS[evaluation] > 1):
        repeats = number(given.pop("repeats", f"repeats={REPEATS[evaluation]}"), least=1)
        keys["data.split_seed"] = ",".join(map(str, range(repeats)))
    if evaluation != BY_GROUP:
        folds = number(given.pop("folds", f"folds={FOLDS}"), least=2)
        keys |= {"data.folds": str(folds), "data.fold": ",".join(map(str, range(folds)))}
    if left := [word for name, word in given.items() if name != "evaluation"]:
        why = "a fold is a group" if left[0].startswith("folds=") else "evaluation=repeated repeats all folds"
        raise GraftError(f"`{left[0]}` with `evaluation={evaluation}`: {why}; leave it out")
    kept = [word for word in words if word.partition("=")[0] not in ("evaluation", "folds", "repeats")]
    if other := next((word for word in kept if word.partition("=")[0] in {*keys, "data.folds", "data.fold"}), None):
        raise GraftError(f"`{given['evaluation']}` with `{other}`: both set {other.partition('=')[0]}; leave one out")
    flag = [] if {"-m", "--multirun"} & {*kept} else ["-m"]
    return [*flag, *(f"{key}={value}" for key, value in keys.items()), *kept]


def number(word: str, least: int) -> int:
    """The number in `folds=5`; GraftError for what is none or out of range."""
    name, _, text = word.partition("=")
    if not text.isdecimal() or not least <= int(text) <= MOST:
        raise GraftError(f"`{word}`: how many, from {least} to {MOST}, such as {name}=5")
    return int(text)


def planned(words: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """The words of a cross-validation whose folds can be made, which the data decide; others as they are.

    The first of several values is looked at. GraftError, once for all jobs, where a fold cannot be trained or tested.
    """
    given = dict(word.split("=", 1) for word in words if word.startswith(("data.evaluation=", "data.folds=")))
    if KEY not in given or not {"-m", "--multirun"} & {*words} or {*SHOWING} & {*words}:
        return list(words)
    config, choices = composed_first(words, folders)
    folds = number_of_folds(config, choices)
    if "data.folds" in given:
        return list(words)
    place = next(place for place, word in enumerate(words) if word.startswith(f"{KEY}=")) + 1
    keys = [f"data.folds={folds}", f"data.fold={','.join(map(str, range(folds)))}"]
    return [*words[:place], *keys, *words[place:]]


def composed_first(words: Sequence[str], folders: Sequence[Path]) -> tuple[dict[str, Any], Mapping[str, str | None]]:
    """The config of the first of a sweep's jobs, and Hydra's choices; raises Hydra's errors."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from graft import config
    from graft.cli import job
    from graft.cli.notebook import composed

    typed = [
        word for word in words if not word.startswith(("-", "hydra", "+hydra")) and ("=" in word or word[0] == "~")
    ]
    first = []
    for one in OverridesParser.create().parse_overrides(typed):
        if not one.is_sweep_override():
            first.append(one.input_line)
        elif one.is_discrete_sweep():
            first.append(f"{one.get_key_element()}={next(iter(one.sweep_string_iterator()))}")
    with job.restored_process(), composed(tuple(first), {}, folders) as (cfg, choices, _):
        return config.plain(cfg), choices or {}


def number_of_folds(config: Mapping[str, Any], choices: Mapping[str, str | None]) -> int:
    """How many folds a config's target has; GraftError where one of them cannot be trained and tested."""
    from graft import registry
    from graft.build import build
    from graft.cache.disk import DiskCache
    from graft.config.check import report, target_problems
    from graft.config.conflicts import Names, evaluation_contradictions

    data = config["data"]
    folds = data["folds"]
    first = {**config, "data": {**data, "folds": folds or 2, "fold": 0}}
    if problems := [*target_problems(config)] or [*evaluation_contradictions(first, Names(first, choices))]:
        raise GraftError(report(problems))
    registry.trust(config["allow"])
    module = build(first["data"])
    if config["cache"]["decoded"]:
        folder, limit = Path(config["paths"]["cache_dir"]) / "computed", config["cache"]["limit_gb"]
        module.decoded = DiskCache(folder, int(limit * 2**30))
    return int(module.check_folds(data["evaluation"], folds))
