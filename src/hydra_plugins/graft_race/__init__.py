"""`hydra/sweeper=race` for Hydra, which takes sweepers from packages of this name alone."""

from collections.abc import Mapping
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class RaceSweeper(Sweeper):
    """Trains all candidates a little, the better ones longer and the best one whole; see graft.cli.race."""

    def __init__(
        self,
        space: str | None = None,
        budget: float | None = None,
        budget_s: float | None = None,
        refit: bool = False,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        """`params` are what an experiment sweeps; conf/hydra/sweeper/race.yaml says what the others are."""
        self.space = space
        self.budget = budget
        self.budget_s = budget_s
        self.refit = refit
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def sweep(self, arguments: list[str]) -> Any:
        """Race the candidates; `arguments` are the overrides of the command line."""
        from graft.cli.race import run  # not where Hydra only looks which plugins there are

        assert self.hydra_context is not None  # Hydra calls setup first
        assert self.config is not None
        return run(
            self.hydra_context,
            self.task_function,
            self.config,
            [*(f"{key}={value}" for key, value in self.params.items()), *arguments],
            named=self.space,
            budget=self.budget,
            budget_s=self.budget_s,
            refit=self.refit,
        )
