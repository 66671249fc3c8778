"""A logger that may break without ending the run."""

from collections.abc import Callable
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.loggers.logger import DummyExperiment

from graft.errors import GraftError, first_line, printable
from graft.loggers.wandb_run import WandbRun
from graft.notes import say_once


class Guarded(Logger):
    """Another logger, of which nothing is asked any more once a call has failed; `broken` is why.

    A GraftError, such as W&B that cannot be reached although `mode=online` asks for it, still ends the run.
    """

    def __init__(self, key: str, logger: Logger) -> None:
        """`key` is what the config calls it."""
        super().__init__()
        self.key = key
        self.logger = logger
        self.broken: str | None = None

    def attempt(self, call: Callable[[], Any], otherwise: Any = None) -> Any:
        """What a call returns; `otherwise` where the logger is broken, or breaks now."""
        if self.broken is not None:
            return otherwise
        try:
            return call()
        except GraftError:
            raise
        except Exception as error:  # whatever it is, it says nothing about the training
            self.broken = printable(f"{type(error).__name__}: {first_line(error)}")
            line = f"logger.{self.key} stopped recording ({self.broken}). The run goes on; metrics.csv has everything."
            say_once(line)
            if isinstance(self.logger, WandbRun) and isinstance(error, ConnectionError):
                self.logger.leave_service()
            return otherwise

    @property
    def name(self) -> str | None:
        """The logger's."""
        return self.attempt(lambda: self.logger.name)

    @property
    def version(self) -> int | str | None:
        """The logger's."""
        return self.attempt(lambda: self.logger.version)

    @property
    def save_dir(self) -> str | None:
        """The logger's."""
        return self.attempt(lambda: self.logger.save_dir)

    @property
    def experiment(self) -> Any:
        """The logger's; one that does nothing where it is broken."""
        return self.attempt(lambda: getattr(self.logger, "experiment", DummyExperiment()), DummyExperiment())

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Hand on metrics."""
        self.attempt(lambda: self.logger.log_metrics(metrics, step))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Hand on hyperparameters."""
        self.attempt(lambda: self.logger.log_hyperparams(params, *args, **kwargs))

    def log_graph(self, *args: Any, **kwargs: Any) -> None:
        """Hand on a network."""
        self.attempt(lambda: self.logger.log_graph(*args, **kwargs))

    def save(self) -> None:
        """Let it write."""
        self.attempt(self.logger.save)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Hand on what wrote a checkpoint."""
        self.attempt(lambda: self.logger.after_save_checkpoint(checkpoint_callback))

    def finalize(self, status: str) -> None:
        """Let it end."""
        self.attempt(lambda: self.logger.finalize(status))
