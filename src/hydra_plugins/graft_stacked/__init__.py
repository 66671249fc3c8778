"""`hydra/launcher=stacked` for Hydra, which takes launchers from packages of this name alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from graft.cli.sweep_configs import SweepConfigs


class StackedLauncher(Launcher):
    """Trains jobs together that can be, and runs the others one after the other; see graft.cli.stacked."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config
        self.composer: SweepConfigs | None = None  # which a race's batches share

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs in this process."""
        from graft.cli.stacked import launch  # not where Hydra only looks which plugins there are
        from graft.cli.sweep_configs import SweepConfigs

        self.composer = self.composer or SweepConfigs(self.hydra_context, self.config)
        return launch(
            self.hydra_context, self.task_function, self.config, job_overrides, initial_job_idx, self.composer
        )
