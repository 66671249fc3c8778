"""`graft race` and `strategy=auto` as Hydra's overrides."""

import hashlib
from collections.abc import Sequence

from graft.errors import GraftError

AUTO = "strategy=auto"
KEYS = ("space", "budget", "budget_s", "refit")  # words of a race that are keys of conf/hydra/sweeper/race.yaml
LAUNCHERS = ("basic", "stacked")  # that run jobs in this process, whose CPU time counts
MULTIRUN = ("-m", "--multirun")


def with_auto(words: Sequence[str]) -> list[str]:
    """The words with `strategy=auto` written out as a race; GraftError inside of a sweep."""
    several = next((word for word in words if word.startswith("strategy=") and "auto" in word[9:].split(",")), None)
    if several is None:
        return list(words)
    if several != AUTO or any(word in MULTIRUN for word in words):
        raise GraftError(
            f"`{several}` in a sweep: it is a race, which is a sweep by itself and no job of one. Leave -m out, or "
            "name the strategies to race: graft race ... strategy=frozen,full"
        )
    return as_race([word for word in words if word != AUTO])


def as_race(words: Sequence[str]) -> list[str]:
    """The words of a race as a sweep whose folder follows from them; GraftError for what a race cannot be."""
    rest = [word for word in words if word not in MULTIRUN]
    given = {key: value for key, _, value in (word.partition("=") for word in rest)}
    if "budget" in given and "budget_s" in given:
        raise GraftError(
            f"`budget={given['budget']}` with `budget_s={given['budget_s']}`: a share of the whole sweep, or CPU "
            "seconds; leave one out"
        )
    for key, largest in (("budget", 1.0), ("budget_s", float("inf"))):
        if key in given and not 0 < number(given[key]) <= largest:
            allowed = "a share of the whole sweep's CPU seconds, such as 0.4" if key == "budget" else "CPU seconds"
            raise GraftError(f"`{key}={given[key]}`: must be {allowed}")
    if (refit := given.get("refit", "false")) not in ("true", "false"):
        raise GraftError(f"`refit={refit}`: must be true (the winner trains on validation labels too) or false")
    if (launcher := given.get("hydra/launcher", "stacked")) not in LAUNCHERS:
        raise GraftError(
            f"`hydra/launcher={launcher}` in a race: it counts its own process's CPU time; use {' or '.join(LAUNCHERS)}"
        )
    recipe = [word for word in rest if word.partition("=")[0] not in KEYS]
    name = hashlib.sha256("\n".join(sorted(recipe)).encode()).hexdigest()[:8]
    added = ["hydra/sweeper=race"]
    if "hydra/launcher" not in given:
        added.append("hydra/launcher=stacked")
    if "hydra.sweep.dir" not in given:  # the same command goes on, with a larger budget too
        added.append(f"hydra.sweep.dir=${{paths.logs_dir}}/${{name}}/races/{name}")
    added += [f"hydra.sweeper.{key}={given[key]}" for key in KEYS if key in given]
    if "budget_s" in given:
        added.append("hydra.sweeper.budget=null")
    return ["-m", *added, *recipe]


def number(text: str) -> float:
    """The number that a text is; NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
