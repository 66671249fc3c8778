"""`hydra/sweeper=optuna` for Hydra, which takes sweepers from packages of this name alone."""

from collections.abc import Mapping
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaSweeper(Sweeper):
    """Lets Optuna choose the values of one trial after the other and prune trials; see graft.studies."""

    def __init__(self, params: Mapping[str, Any] | None = None, **settings: Any) -> None:
        """`params` are what an experiment searches; conf/hydra/sweeper/optuna.yaml says what `settings` there are."""
        self.params = dict(params or {})
        self.settings = {key: value for key, value in settings.items() if key != "trial"}  # which a job is told

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def sweep(self, arguments: list[str]) -> Any:
        """Run the trials; `arguments` are the overrides of the command line."""
        from graft.cli.optuna_study import run  # not where Hydra only looks which plugins there are

        assert self.hydra_context is not None  # Hydra calls setup first
        assert self.config is not None
        given = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        return run(self.hydra_context, self.task_function, self.config, given, self.settings)


class NoOtherSchema(SearchPathPlugin):
    """Lets conf/hydra/sweeper/optuna.yaml have other keys than the sweeper of the same name in hydra-optuna-sweeper.

    Where that package is installed, Hydra would check the file against its schema. It takes Optuna 2 alone, whose
    studies on disk do not open under the SQLAlchemy of today.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Forget the schema, once every plugin was found."""
        ConfigStore.instance().repo.get("hydra", {}).get("sweeper", {}).pop("optuna.yaml", None)
