"""The data's say in a cross-validation before its jobs begin: how many folds there are, and whether each is of use."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graft.cli.evaluation import KEY
from graft.errors import GraftError

SWEEP = {"-m", "--multirun"}
SHOWING = {"--cfg", "-c", "--info", "-i"}  # flags with which Hydra runs nothing


def planned(words: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """The words of a cross-validation whose folds can be made, which the data decide; others as they are.

    The first of several values is looked at. GraftError, once for all jobs, where a fold cannot be trained or tested.
    """
    given = dict(word.split("=", 1) for word in words if word.startswith(("data.evaluation=", "data.folds=")))
    if KEY not in given or not SWEEP & {*words} or SHOWING & {*words}:
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
    first: list[str] = []
    for one in OverridesParser.create().parse_overrides(typed):
        if not one.is_sweep_override():
            first.append(one.input_line or "")
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
    from graft.config.conflicts.names import Names
    from graft.config.conflicts.selection import evaluation_contradictions

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
