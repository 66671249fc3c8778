"""A sweep's job in a process that SLURM or Ray starts: what goes there, and what comes back."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from graft.cli import job
from graft.cli.ranks import RANKS
from graft.cli.sweep_callback import lost
from graft.errors import GraftError
from graft.report.sweep_line import job_line
from graft.runs import record
from graft.runs.folder import DONE, ERROR
from graft.runs.sweep_plan import read_plan
from graft.runs.sweeps import first_error_line


class Launcher(Protocol):
    """What Hydra gives a launcher in `setup`."""

    hydra_context: HydraContext
    task_function: TaskFunction
    config: DictConfig


@dataclass
class RemoteJob:
    """All that another process needs to run one job; pickled."""

    context: HydraContext
    task: TaskFunction
    base: DictConfig
    overrides: list[str]
    number: int
    singletons: dict[Any, Any]
    environment: dict[str, str]
    arguments: list[str]  # from which Lightning starts further processes

    def run(self) -> JobReturn:
        """Run it there, as Hydra's own launchers do; of several processes of one job the first one decides."""
        setup_globals()
        Singleton.set_state(self.singletons)
        os.environ.update(self.environment)
        sys.argv[:] = self.arguments
        config = self.context.config_loader.load_sweep_config(self.base, self.overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = self.number
            if RANKS.rank:
                decided = RANKS.follow()
                if "exit_code" in decided:
                    return without_value(self)
                config.resume = decided["resume"]
        returned = run_job(
            hydra_context=self.context,
            task_function=self.task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        RANKS.end(job.STATE.exit_code)
        return returned


def remote_jobs(launcher: Launcher, job_overrides: Sequence[Sequence[str]], first: int) -> list[RemoteJob]:
    """A batch of jobs, of which `first` is the number of the first one; the sweep's folder is made."""
    setup_globals()
    base = launcher.config
    configure_log(base.hydra.hydra_logging, base.hydra.verbose)
    Path(str(base.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name.startswith("GRAFT_")}
    shared = (launcher.hydra_context, launcher.task_function, base)
    return [
        RemoteJob(*shared, list(one), number, Singleton.get_state(), environment, list(sys.argv))
        for number, one in enumerate(job_overrides, first)
    ]


def ended(one: RemoteJob, returned: JobReturn) -> JobReturn:
    """Print here how a job ended: what it prints itself is in a log elsewhere."""
    folder = Path(str(returned.working_dir))
    plan = read_plan()
    if (folder / ERROR).exists():
        error = first_error_line((folder / ERROR).read_text())
        print(f"FAILED {' '.join(one.overrides)}\n{error}\n({folder / ERROR})", file=sys.stderr)
    elif (folder / DONE).exists() and plan:
        try:
            results = record.read(folder)
        except GraftError as error:
            print(error, file=sys.stderr)
        else:
            print(job_line(plan, folder.parent, one.number, one.overrides, results), flush=True)
    return returned


def ended_without_a_word(one: RemoteJob, why: str) -> JobReturn:
    """Say that the process of a job is gone; the others go on, and the same command goes on with this one."""
    lost(f"LOST {' '.join(one.overrides)}\n{why}", Path(str(one.base.hydra.sweep.dir)))
    return without_value(one)


def without_value(one: RemoteJob) -> JobReturn:
    """What Hydra takes for a job that ended and returned None, as a failed one does."""
    returned = JobReturn(one.overrides, status=JobStatus.COMPLETED)
    returned.return_value = None
    return returned
