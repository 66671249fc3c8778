"""The recipe's own configuration in a sweep of `selection=budget`: it is left for a clear gain only."""

import functools
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graft.runs.record import split_of
from graft.runs.roles import REPEATS, role

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from graft.runs.sweeps import Row

MANY = ("logger", "term")  # groups that take a list of options


def keys_as_recipe(overrides: Sequence[str]) -> list[str]:
    """The keys of a job's overrides to which the recipe gives the same value: what it is on its data and backbone.

    None outside of a Hydra job.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    own = [one for one in parsed if role(one.key_or_group) != "setting" and one.key_or_group not in REPEATS]
    if not own:
        return []
    config, choices = recipe(tuple(one.input_line for one in parsed if role(one.key_or_group) == "setting"))
    return [one.key_or_group for one in own if value_in(config, choices, one.key_or_group) == one.value()]


@functools.lru_cache(maxsize=8)
def recipe(settings: tuple[str, ...]) -> tuple["DictConfig", dict[str, Any]]:
    """The config that the overrides of data, backbone and the like give alone, and Hydra's choices."""
    from hydra import compose

    config = compose("train", overrides=list(settings), return_hydra_config=True)
    return config, dict(config.hydra.runtime.choices)


def value_in(config: "DictConfig", choices: dict[str, Any], key: str) -> Any:
    """What a config has under the key of an override; of a group the option, of several options a list."""
    from omegaconf import OmegaConf

    if key in MANY:
        return list(config.get(key) or {})
    return choices[key] if key in choices else OmegaConf.select(config, key)


def recipe_before_small_gains(rows: Sequence["Row"]) -> list["Row"]:
    """Rows of one setting, best first by cross-validation, with the recipe's before those that hardly gain on it.

    So it is among all rows, and within each strategy among what is tuned there.
    """
    ordered = list(rows)
    arms: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for place, row in enumerate(rows):
        arm = {key: value for key, value in row.overrides.items() if role(key) == "arm"}
        arms.setdefault(tuple(sorted(arm.items())), []).append(place)
    for places in arms.values():
        for place, row in zip(places, recipe_first([rows[place] for place in places]), strict=True):
            ordered[place] = row
    return recipe_first(ordered)


def recipe_first(rows: Sequence["Row"]) -> list["Row"]:
    """The same rows, the recipe's own first unless the first one's gain over it is clear."""
    own = next((row for row in rows if is_recipe(row, rows)), None)
    if own is None or is_clear_gain(rows[0], own):
        return list(rows)
    return [own, *(row for row in rows if row is not own)]


def is_recipe(row: "Row", rows: Sequence["Row"]) -> bool:
    """Whether a row has the recipe's value of every key in which the rows differ."""
    keys = {key for one in rows for key in one.overrides}
    varied = {key for key in keys if len({one.overrides.get(key) for one in rows}) > 1}
    return bool(row.finished) and all(varied <= {*results["selection"]["as_recipe"]} for results in row.finished)


def not_clearly_worse(rows: Sequence["Row"]) -> list["Row"]:
    """Rows of one setting that have folds, on which the best one of them does not gain clearly."""
    with_folds = [row for row in rows if row.mean("selection", "value") is not None]
    if not with_folds:
        return []
    sign = -1 if with_folds[0].finished[0]["selection"]["mode"] == "min" else 1
    best = max(with_folds, key=lambda row: sign * (row.mean("selection", "value") or 0.0))
    return [row for row in with_folds if not is_clear_gain(best, row)]


def is_clear_gain(row: "Row", own: "Row") -> bool:
    """Whether a row's folds gain more than one standard error on another's; False where one of them has no folds."""
    folds = [
        {(split_of(one), one["seeds"]["train"]): one["selection"]["folds"] for one in each.finished}
        for each in (row, own)
    ]
    pairs = [pair for key in folds[0] if key in folds[1] for pair in zip(folds[0][key], folds[1][key], strict=False)]
    if len(pairs) < 2:
        return False
    sign = -1 if row.finished[0]["selection"]["mode"] == "min" else 1
    gains = [sign * (mine - other) for mine, other in pairs]
    return statistics.fmean(gains) > statistics.stdev(gains) / len(gains) ** 0.5
