"""`hydra/launcher=ray` for Hydra, which takes launchers from packages of this name alone."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class RayLauncher(Launcher):
    """Runs a sweep's jobs as tasks of a Ray cluster; see graft.cli.ray_jobs."""

    def __init__(
        self, address: str | None, jobs: int | None, cpus_per_job: float, gpus_per_job: float, retries: int
    ) -> None:
        """conf/hydra/launcher/ray.yaml says what the keys are."""
        self.address = address
        self.jobs = jobs
        self.cpus_per_job = cpus_per_job
        self.gpus_per_job = gpus_per_job
        self.retries = retries

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs on the cluster."""
        from graft.cli.ray_jobs import launch  # not where Hydra only looks which plugins there are

        return launch(self, job_overrides, initial_job_idx)
