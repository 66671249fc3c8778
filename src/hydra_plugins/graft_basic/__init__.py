"""`hydra/sweeper=basic`, the default: Hydra's own grid, which composes a kind of jobs once before the first begins."""

from collections.abc import Sequence
from dataclasses import dataclass

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper as HydrasSweeper
from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class BasicSweeper(HydrasSweeper):
    """Every combination of the values, as Hydra's; it refuses what does not compose without composing every job."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives, and a composer, which a launcher that composes in this process shares."""
        from graft.cli.sweep_configs import SweepConfigs  # not where Hydra only looks which plugins there are
        from hydra_plugins.graft_stacked import StackedLauncher  # whose class Hydra makes anew as it looks

        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.composer = SweepConfigs(hydra_context, config)
        if isinstance(self.launcher, StackedLauncher):
            self.launcher.composer = self.composer

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Raise Hydra's error for the first job that does not compose."""
        for overrides in batch:
            self.composer.check(overrides)


@dataclass
class Settings(BasicSweeperConf):
    """Hydra's keys of the sweeper; a file in conf/hydra would be checked against them, with a warning."""

    _target_: str = "hydra_plugins.graft_basic.BasicSweeper"


if hydra.__version__.startswith("1.3"):  # 1.4 composes otherwise, and its own sweeper stays
    ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=Settings, provider="graft")
