"""`hydra/launcher=slurm` and `slurm_local`: a sweep's jobs as one SLURM array, or as local processes.

Hydra's own plugin gives up at the first job whose process was killed; here the others are waited for. A job that has to
make room, or whose time is over, saves after its batch before submitit puts it back into the queue.
"""

import signal
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from hydra.core.utils import JobReturn

from graft import signals
from graft.cli.remote_jobs import Launcher, RemoteJob, ended, ended_without_a_word, remote_jobs
from graft.errors import LaunchRefused, first_line

MISSING = (
    "`hydra/launcher={option}`: submitit is not installed. Install it with: pip install 'graft[sweep]' (in a "
    "clone: pip install -e '.[sweep]')"
)
SHARED = ("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name")


class SubmititLauncher(Launcher, Protocol):
    """What the plugin is given; conf/hydra/launcher/slurm.yaml says what the keys are."""

    cluster: str
    folder: str
    max_num_timeout: int
    params: dict[str, Any]


class SubmittedJob:
    """What submitit calls in the job's process; it knows by `checkpoint` that the job may be called again."""

    def __call__(self, one: RemoteJob) -> JobReturn:
        """Run the job; one that was asked to stop, and has saved, leaves the rest to submitit's own handler."""
        returned = one.run()
        if signals.STATE.asked is not None:
            signal.raise_signal(signals.STATE.asked)
        return returned

    def checkpoint(self, one: RemoteJob) -> Any:
        """The call that goes on: the job finds its last checkpoint."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, one)


def launch(launcher: SubmititLauncher, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Submit a batch of jobs and wait for all of them."""
    try:
        import submitit
    except ModuleNotFoundError:
        raise LaunchRefused(MISSING.format(option="slurm" if launcher.cluster == "slurm" else "slurm_local")) from None

    jobs = remote_jobs(launcher, job_overrides, first)
    limits = {f"{launcher.cluster}_max_num_timeout": launcher.max_num_timeout}
    try:
        executor = submitit.AutoExecutor(cluster=launcher.cluster, folder=launcher.folder, **limits)
        executor.update_parameters(
            **{key if key in SHARED else f"{launcher.cluster}_{key}": value for key, value in launcher.params.items()}
        )
        submitted = executor.map_array(SubmittedJob(), jobs)
    except (RuntimeError, ValueError, NameError, submitit.core.utils.FailedJobError) as error:  # of sbatch too
        raise LaunchRefused(f"`hydra.launcher`: submitit cannot submit the jobs: {first_line(error)}") from None
    names = f"{submitted[0].job_id} to {submitted[-1].job_id}" if len(submitted) > 1 else submitted[0].job_id
    print(f"Submitted {len(jobs)} jobs, {names}. What they print: {submitted[0].paths.folder.parent}", flush=True)
    return [result_of(one, place) for one, place in zip(jobs, submitted, strict=True)]


def result_of(one: RemoteJob, submitted: Any) -> JobReturn:
    """Wait for a job."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        return ended(one, submitted.results()[0])
    except (FailedJobError, UncompletedJobError):
        return ended_without_a_word(
            one, f"The process of job {submitted.job_id} is gone (state: {submitted.state}): {submitted.paths.stderr}"
        )
    except KeyboardInterrupt:
        if submitted._cancel_command == "scancel":
            print(f"The jobs stay in SLURM's queue: scancel {submitted.job_id.partition('_')[0]}", file=sys.stderr)
        raise
