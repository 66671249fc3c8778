"""The few calls that Hydra 1.3 and 1.4, with their OmegaConfs, have no common form for; all else is the same code."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

MULTIRUN = re.compile(r"^  mode: MULTIRUN", flags=re.MULTILINE)
IS_1_3 = hydra.__version__.startswith("1.3")
# 1.3 warns without its version, 1.4 with one.
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if IS_1_3 else {}
# What @hydra.main takes: 1.4 also needs a list of what Hydra itself may build, which is conf/hydra's callback.
MAIN: dict[str, Any] = VERSION_BASE or {"execution_whitelist": ["graft.cli.sweep_callback.SweepCallback"]}
register_resolver: Callable[..., None] = OmegaConf.register_new_resolver if IS_1_3 else OmegaConf.register_resolver


def with_sweep_flag(arguments: list[str], folders: Iterable[Path]) -> list[str]:
    """The command line with -m where its experiment is a sweep: 1.4 refuses lists of values before it reads that."""
    named = [match[1] for argument in arguments if (match := re.fullmatch(r"\+?experiment=([\w/]+)", argument))]
    files = [path for folder in folders for name in named if (path := folder / "experiment" / f"{name}.yaml").is_file()]
    sweeps = any(MULTIRUN.search(path.read_text()) for path in files)
    given = {"-m", "--multirun", "-c", "--cfg", "-r", "--run"} & set(arguments)
    return ["-m", *arguments] if sweeps and not given else arguments


def name_overrides(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Put the job's overrides into a name that its config has for them; 1.4 makes the name where it is asked for."""
    if not IS_1_3:
        return
    from hydra._internal.config_loader_impl import get_overrides_dirname

    form = config.hydra.job.config.override_dirname
    config.hydra.job.override_dirname = get_overrides_dirname(
        overrides=list(overrides), kv_sep=form.kv_sep, item_sep=form.item_sep, exclude_keys=form.exclude_keys
    )
