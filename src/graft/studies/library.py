"""Optuna itself, an extra: its samplers and pruners by the names of conf/hydra/sweeper/optuna.yaml."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

from graft.errors import GraftError

OLDEST = 4  # whose SQLite studies open under SQLAlchemy 2
SAMPLERS = ("tpe", "random", "gp", "nsga2")
PRUNERS = ("median", "hyperband", None)
DIRECTIONS = ("auto", "maximize", "minimize")


@dataclass(frozen=True)
class StudySettings:
    """The keys of `hydra/sweeper=optuna`."""

    n_trials: int
    n_jobs: int
    sampler: str
    seed: int
    pruner: str | None
    startup_trials: int
    warmup_epochs: int
    direction: str
    study_name: str
    storage: str


def settings_of(given: Mapping[str, Any]) -> StudySettings:
    """The settings; GraftError names every key that is wrong."""
    numbers = {"n_trials": 1, "n_jobs": 1, "startup_trials": 0, "warmup_epochs": 0, "seed": 0}
    words = {"sampler": SAMPLERS, "pruner": PRUNERS, "direction": DIRECTIONS}
    problems = [
        f"`hydra.sweeper.{key}={given[key]}`: must be a whole number, {least} or more"
        for key, least in numbers.items()
        if not isinstance(given[key], int) or isinstance(given[key], bool) or given[key] < least
    ]
    problems += [
        f"`hydra.sweeper.{key}={given[key]}`: must be one of {', '.join(str(one or 'null') for one in allowed)}"
        for key, allowed in words.items()
        if given[key] not in allowed
    ]
    if problems:
        raise GraftError("\n".join(problems))
    return StudySettings(**{one.name: given[one.name] for one in fields(StudySettings)})


def optuna() -> ModuleType:
    """The library; GraftError where it is missing or too old."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it imports
            import optuna as library
    except ImportError as error:
        raise GraftError(f"`hydra/sweeper=optuna` needs Optuna ({error}). {INSTALL}") from None
    if int(library.__version__.split(".")[0]) < OLDEST:
        raise GraftError(f"`hydra/sweeper=optuna` needs Optuna {OLDEST}, here is {library.__version__}. {INSTALL}")
    library.logging.set_verbosity(library.logging.WARNING)
    return library


INSTALL = "Install it: pip install 'optuna>=4' (the extra `optuna` of Graft), or use graft race, which needs nothing."


def sampler_of(settings: StudySettings, before: int) -> Any:
    """What chooses values; a study that goes on after `before` trials draws other random numbers than it began with."""
    samplers = optuna().samplers
    made: dict[str, Callable[..., Any]] = {
        "tpe": samplers.TPESampler,
        "random": samplers.RandomSampler,
        "gp": samplers.GPSampler,
        "nsga2": samplers.NSGAIISampler,
    }
    return made[settings.sampler](seed=settings.seed + before)


def pruner_of(settings: StudySettings, epochs: int) -> Any:
    """What ends trials of so many epochs."""
    pruners = optuna().pruners
    if settings.pruner == "median":
        return pruners.MedianPruner(n_startup_trials=settings.startup_trials, n_warmup_steps=settings.warmup_epochs)
    if settings.pruner == "hyperband":
        return pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    return pruners.NopPruner()
