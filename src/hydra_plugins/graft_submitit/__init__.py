"""`hydra/launcher=slurm` and `slurm_local` for Hydra, which takes launchers from packages of this name."""

from collections.abc import Sequence
from typing import Any, cast

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class SubmititLauncher(Launcher):
    """Hands a sweep's jobs to SLURM, or to processes of this machine in the same way; see graft.cli.submitit_jobs."""

    def __init__(self, cluster: str, submitit_folder: str, max_num_timeout: int, **params: Any) -> None:
        """conf/hydra/launcher/slurm.yaml says what the keys are."""
        self.cluster = cluster
        self.folder = submitit_folder
        self.max_num_timeout = max_num_timeout
        self.params = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(params), resolve=True))

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs, each in a process of the cluster's."""
        from graft.cli.submitit_jobs import launch  # not where Hydra only looks which plugins there are

        return launch(self, job_overrides, initial_job_idx)
