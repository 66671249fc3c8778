"""The loggers of a run: always a CSV file in its folder, W&B or TensorBoard as the `logger` group says."""

import functools
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from graft import registry
from graft.build import build
from graft.errors import GraftError
from graft.loggers.guarded import Guarded
from graft.loggers.metrics_file import MetricsFile
from graft.loggers.wandb_run import WandbRun, WandbSettings, wandb_mode

if TYPE_CHECKING:
    from graft.report.page import Page


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
    found: dict[str, Logger] = {}
    for key, options in (logger_cfg or {}).items():
        if options is None:
            continue
        if key == "wandb":
            mode = wandb_mode(options.get("mode", "auto"))
            if mode != "disabled":
                found[key] = WandbRun(
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
        elif key == "tensorboard":
            if importlib.util.find_spec("tensorboard") is None:
                raise GraftError("logger=tensorboard needs a package that is missing: pip install tensorboard")
            found[key] = TensorBoardLogger(run_dir, name="", version="tensorboard", default_hp_metric=False)
        elif registry.TARGET in options:
            found[key] = build(options)
        elif key != "csv":
            raise GraftError(f"logger.{key}: unknown logger. Allowed: csv, tensorboard, wandb, or a `_target_`")
    return [MetricsFile(run_dir), *(Guarded(key, logger) for key, logger in found.items())]


@rank_zero_only
def start(loggers: Sequence[Logger]) -> None:
    """Begin recording where that takes a while, so that the time of a fit is that of training."""
    for guard, _ in wandb_runs(loggers):
        _ = guard.experiment


def wandb_info(loggers: Sequence[Logger]) -> dict[str, Any] | None:
    """`id`, `dir`, `offline` and `url` of the W&B run; None without one or before it has started."""
    return next((run.info for _, run in wandb_runs(loggers)), None)


def broken(loggers: Sequence[Logger]) -> dict[str, str]:
    """By their keys the loggers that have stopped recording, and why."""
    return {one.key: one.broken for one in loggers if isinstance(one, Guarded) and one.broken is not None}


@rank_zero_only
def log_results(loggers: Sequence[Logger], results: Mapping[str, Any]) -> None:
    """Put a run's results where people compare runs: test metrics, costs and confusion matrices in the W&B summary."""
    for guard, run in wandb_runs(loggers):
        guard.attempt(functools.partial(run.log_results, results))


@rank_zero_only
def log_page(loggers: Sequence[Logger], page: "Page") -> None:
    """Put the pictures and tables of a run's page into its W&B run."""
    for guard, run in wandb_runs(loggers):
        guard.attempt(functools.partial(run.log_page, page))


@rank_zero_only
def finish(loggers: Sequence[Logger], ok: bool) -> None:
    """Close every logger, so that nothing leaks into the next job of this process; `ok` False marks the run failed."""
    for logger in loggers:
        logger.finalize("success" if ok else "failed")
        if isinstance(logger, MetricsFile):
            logger.close()
    for guard, run in wandb_runs(loggers):
        guard.attempt(functools.partial(run.finish, ok))


def wandb_runs(loggers: Sequence[Logger]) -> list[tuple[Guarded, WandbRun]]:
    """The W&B runs among loggers, with what guards them."""
    return [(one, one.logger) for one in loggers if isinstance(one, Guarded) and isinstance(one.logger, WandbRun)]
