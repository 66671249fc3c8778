"""The loggers of a run: always a CSV file in its folder, W&B or TensorBoard as the `logger` group says."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from graft import registry
from graft.build import build
from graft.errors import GraftError
from graft.loggers.metrics_file import MetricsFile
from graft.loggers.wandb_run import WandbRun, WandbSettings, wandb_mode

if TYPE_CHECKING:
    pass


class NoKeys(TypedDict):
    """A logger without keys."""


class LoggerSettings(TypedDict):
    """The options of `logger`; any other name is a logger of a `_target_`."""

    csv: NoKeys | None
    tensorboard: NoKeys | None
    wandb: WandbSettings | None


def build_loggers(
    logger_cfg: Mapping[str, Any] | None,
    *,
    run_dir: Path,
    name: str,
    config: Mapping[str, Any],
    tags: Sequence[str],
    group: str | None,
    job_type: str,
) -> list[Logger]:
    """Loggers of a run, the CSV file first; nothing starts and nothing is written before the Trainer asks for it.

    Raises GraftError for a logger or a W&B mode that does not exist, or one whose package is missing.
    """
    loggers: list[Logger] = [MetricsFile(run_dir)]
    for key, options in (logger_cfg or {}).items():
        if options is None:
            continue
        if key == "wandb":
            mode = wandb_mode(options.get("mode", "auto"))
            if mode != "disabled":
                loggers.append(
                    WandbRun(
                        run_dir,
                        mode=mode,
                        stats=options.get("system_stats", False),
                        project=options.get("project") or "graft",
                        entity=options.get("entity"),
                        notes=options.get("notes") or None,
                        name=name,
                        config={**config, "run_dir": str(run_dir)},
                        tags=list(tags),
                        group=group,
                        job_type=job_type,
                    )
                )
        elif key == "tensorboard":
            if importlib.util.find_spec("tensorboard") is None:
                raise GraftError("logger=tensorboard needs a package that is missing: pip install tensorboard")
            loggers.append(TensorBoardLogger(run_dir, name="", version="tensorboard", default_hp_metric=False))
        elif registry.TARGET in options:
            loggers.append(build(options))
        elif key != "csv":
            raise GraftError(f"logger.{key}: unknown logger. Allowed: csv, tensorboard, wandb, or a `_target_`")
    return loggers


@rank_zero_only
def start(loggers: Sequence[Logger]) -> None:
    """Begin recording where that takes a while, so that the time of a fit is that of training."""
    for logger in loggers:
        if isinstance(logger, WandbRun):
            _ = logger.experiment


def wandb_info(loggers: Sequence[Logger]) -> dict[str, Any] | None:
    """`id`, `dir`, `offline` and `url` of the W&B run; None without one or before it has started."""
    return next((logger.info for logger in loggers if isinstance(logger, WandbRun)), None)


@rank_zero_only
def log_results(loggers: Sequence[Logger], results: Mapping[str, Any]) -> None:
    """Put a run's results where people compare runs: test metrics, costs and confusion matrices in the W&B summary."""
    for logger in loggers:
        if isinstance(logger, WandbRun):
            logger.log_results(results)


@rank_zero_only
def finish(loggers: Sequence[Logger], ok: bool) -> None:
    """Close every logger, so that nothing leaks into the next job of this process; `ok` False marks the run failed."""
    for logger in loggers:
        logger.finalize("success" if ok else "failed")
        if isinstance(logger, WandbRun):
            logger.finish(ok)
        elif isinstance(logger, MetricsFile):
            logger.close()
