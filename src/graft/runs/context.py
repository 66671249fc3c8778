"""What Hydra knows of the job that runs now; nothing where there is no Hydra, as in a notebook."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from graft.runs.sweep_plan import read_plan

DEFAULT_THREADS = torch.get_num_threads()


@dataclass(frozen=True)
class RunContext:
    """A job's overrides, and the name of the sweep that it belongs to."""

    overrides: list[str] = field(default_factory=list)
    sweep: str | None = None
    label: str = ""  # by which the job differs from the sweep's others
    trial: Mapping[str, Any] | None = None  # of a study, Hydra's sweeper; see graft.studies.report


def run_context() -> RunContext:
    """Of the job that runs now."""
    if not HydraConfig.initialized():
        return RunContext()
    hydra = HydraConfig.get()
    sweep = Path(hydra.sweep.dir).name if hydra.mode == RunMode.MULTIRUN else None
    overrides = cast(list[str], OmegaConf.to_container(hydra.overrides.task, resolve=False))
    plan = read_plan() if sweep else None
    trial = trial_of(hydra.sweeper) if sweep else None
    return RunContext(overrides, sweep, plan.label(overrides) if plan else "", trial)


def trial_of(sweeper: Any) -> Mapping[str, Any] | None:
    """The settings of a sweeper that names this job's trial; None of any other."""
    if OmegaConf.select(sweeper, "trial") is None:
        return None
    return cast(dict[str, Any], OmegaConf.to_container(sweeper, resolve=True))


def threads_of_job() -> int:
    """Torch's own choice, or a share of the cores where hydra/launcher=joblib runs jobs side by side."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return DEFAULT_THREADS
    launcher = HydraConfig.get().launcher
    if not launcher._target_.endswith(".JoblibLauncher"):
        return DEFAULT_THREADS
    import joblib

    cores, jobs = joblib.cpu_count(), launcher.n_jobs  # joblib counts the cores that this process may use
    return max(1, cores // max(1, jobs if jobs > 0 else cores + 1 + jobs))
