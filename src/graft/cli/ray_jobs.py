"""`hydra/launcher=ray`: a sweep's jobs as tasks of a Ray cluster, through Ray's own API."""

import os
from collections.abc import Sequence
from typing import Protocol

from hydra.core.utils import JobReturn

from graft.cli.remote_jobs import Launcher, RemoteJob, ended, ended_without_a_word, remote_jobs
from graft.errors import LaunchRefused, first_line

MISSING = (
    "`hydra/launcher=ray`: Ray is not installed. Install it with: pip install 'graft[ray]' (in a clone: pip install -e "
    "'.[ray]')"
)


class RayLauncher(Launcher, Protocol):
    """What the plugin is given; conf/hydra/launcher/ray.yaml says what the keys are."""

    address: str | None
    jobs: int | None
    cpus_per_job: float
    gpus_per_job: float
    retries: int


def launch(launcher: RayLauncher, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Run a batch of jobs, as many at a time as the cluster has room for."""
    try:
        import ray
    except ModuleNotFoundError:
        raise LaunchRefused(MISSING) from None

    jobs = remote_jobs(launcher, job_overrides, first)
    started = not ray.is_initialized()
    if started:
        start(launcher)
    try:
        task = ray.remote(num_cpus=launcher.cpus_per_job, num_gpus=launcher.gpus_per_job, max_retries=launcher.retries)(
            run
        )
        places = {task.remote(one): place for place, one in enumerate(jobs)}
        returned: dict[int, JobReturn] = {}
        waiting = list(places)
        while waiting:
            (done,), waiting = ray.wait(waiting, num_returns=1)
            one = jobs[places[done]]
            try:
                returned[places[done]] = ended(one, ray.get(done))
            except ray.exceptions.RayError as error:
                returned[places[done]] = ended_without_a_word(one, first_line(error))
        return [returned[place] for place in range(len(jobs))]
    finally:
        if started:
            ray.shutdown()


def run(one: RemoteJob) -> JobReturn:
    """What a worker calls."""
    return one.run()


def start(launcher: RayLauncher) -> None:
    """Join the cluster at an address, or begin one on this machine; LaunchRefused where there is none."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a sweep tells nobody else about itself
    own = {"num_cpus": max(1, round(launcher.jobs * launcher.cpus_per_job))} if launcher.jobs else {}
    try:
        if launcher.address:
            ray.init(address=launcher.address, log_to_driver=False)
        else:
            ray.init(**own, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise LaunchRefused(
            f"`hydra.launcher.address={launcher.address}`: there is no Ray cluster: {first_line(error)}. Start one "
            "with `ray start --head`, or leave the address out for one on this machine."
        ) from None
