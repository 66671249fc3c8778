"""Graft from a notebook: the same config check, run folder and caches as on the command line, without an exit code."""

import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict

from graft import config, experiment
from graft import paths as paths  # registers the resolvers that name folders
from graft.cli import job
from graft.cli.arguments import expanded, quoted_path
from graft.cli.hydra_versions import VERSION_BASE
from graft.config import facts
from graft.data.held import held
from graft.errors import Diverged, GraftError, Interrupted, in_quotes
from graft.files import write_whole
from graft.locations import CONF, ROOT
from graft.runs import record
from graft.runs.folder import DONE, RunFolder
from graft.runs.process import is_main_process

SWEEPS = ("seeds", "splits", "evaluation", "folds", "repeats")  # words of the command line that stand for lists
FIRST_KEYS = ("data", "backbone", "paths")  # a mapping without them is no whole config


def train(*overrides: str | Mapping[str, Any], **values: Any) -> dict[str, Any]:
    """Run one experiment, or return the results of the finished run that its folder holds; see graft.train."""
    with job.restored_process(), composed(overrides, values) as (cfg, choices, words):
        run = RunFolder(cfg.paths.run_dir)
        try:
            settings = job.prepare(cfg, choices, words, run, sweep=None)
            if settings is None:
                return finished(run)
            results = execute(settings, run, words)
            if is_main_process():
                write_whole(run.path / DONE, f"{record.FINISHED}\n")
            return results
        finally:
            run.release()


def execute(settings: Mapping[str, Any], run: RunFolder, overrides: list[str]) -> dict[str, Any]:
    """Do what a checked config asks for; how it fails is left in the folder as on the command line, and raised."""
    try:
        return job.execute(settings)
    except Diverged:
        if is_main_process():
            write_whole(run.path / DONE, f"{record.DIVERGED}\n")
        raise
    except (Interrupted, KeyboardInterrupt):
        raise  # nothing is wrong: resume=true goes on
    except GraftError as error:
        job.write_error(run, overrides, str(error))
        raise
    except BaseException:
        job.write_error(run, overrides, traceback.format_exc())
        raise


def finished(run: RunFolder) -> dict[str, Any]:
    """The results of a finished run; Diverged again where it diverged."""
    results = cast(dict[str, Any], record.read(run.path))
    if results.get("status") == record.DIVERGED:
        raise Diverged(f"{results['message']}\nDiverged before, not run again. To run it again, delete {run.path}")
    return results


def assemble(*overrides: str | Mapping[str, Any], **values: Any) -> experiment.Experiment:
    """Check a config and build what it names; see graft.assemble."""
    with job.restored_process(), composed(overrides, values) as (cfg, choices, _):
        return experiment.assemble(config.check(cfg, choices))


def check_composed(overrides: Sequence[str], folders: Sequence[Path] = ()) -> dict[str, Any]:
    """A plain config from overrides and further folders of options, after the check of its keys.

    Raises GraftError, and Hydra's errors.
    """
    with job.restored_process(), composed(tuple(overrides), {}, folders) as (cfg, choices, _):
        return config.check(cfg, choices)


@contextmanager
def composed(
    overrides: tuple[str | Mapping[str, Any], ...], values: Mapping[str, Any], folders: Sequence[Path] = ()
) -> Iterator[tuple[DictConfig, Mapping[str, str | None] | None, list[str]]]:
    """The config, Hydra's choices for its groups (None where a whole config is given), and the overrides as text."""
    os.environ.setdefault("GRAFT_ROOT", str(ROOT))
    facts.forget()
    with held(values) as plain:
        if any(isinstance(one, Mapping) for one in overrides):
            yield whole(overrides, plain), None, []
            return
        check_one_job([*cast(tuple[str, ...], overrides), *(f"{key}={value}" for key, value in plain.items())])
        words = [
            *map(quoted_path, cast(tuple[str, ...], overrides)),
            *(f"{key}={as_override(v)}" for key, v in expanded(plain).items()),
        ]
        with initialize_config_dir(str(CONF), **VERSION_BASE):
            loader: Any = GlobalHydra.instance().config_loader()
            for folder in folders:  # as Hydra's --config-dir
                loader.get_search_path().prepend("command-line", f"file://{folder.absolute()}", anchor="schema")
            loader.repository.initialize_sources(loader.get_search_path())
            cfg = compose("train", overrides=words, return_hydra_config=True)
            choices, folder = dict(cfg.hydra.runtime.choices), cfg.hydra.run.dir
            with open_dict(cfg):
                del cfg.hydra
            if OmegaConf.is_interpolation(cfg.paths, "run_dir"):  # Hydra's, which runs no app here
                cfg.paths.run_dir = str(Path(folder).absolute())
            yield cfg, choices, words


def check_one_job(words: Sequence[str]) -> None:
    """GraftError for what the command line makes a sweep of."""
    if several := next((word for word in words if word.partition("=")[0] in SWEEPS), None):
        raise GraftError(
            f"`{several}` makes a sweep, and from Python a call is one job: python train.py ... {several} on the "
            "command line, or a call for each value (seed=0; data.evaluation=kfold data.folds=5 data.fold=0)"
        )


def whole(overrides: tuple[str | Mapping[str, Any], ...], values: Mapping[str, Any]) -> DictConfig:
    """A config that was given as a mapping, with single keys replaced by `values`."""
    if len(overrides) > 1 or not all(key in overrides[0] for key in FIRST_KEYS):
        raise GraftError(
            'graft.train takes either overrides, such as "experiment=resnet_ft", or one mapping that is a whole '
            f"config, with the keys {', '.join(FIRST_KEYS)} and the others of conf/train.yaml."
        )
    given: Any = overrides[0]
    plain = OmegaConf.to_container(given) if OmegaConf.is_config(given) else given
    cfg = cast(DictConfig, OmegaConf.create(plain))
    for key, value in values.items():
        OmegaConf.update(cfg, key, value)
    fill_paths(cfg)
    return cfg


def fill_paths(cfg: DictConfig) -> None:
    """Give a whole config the folders that it leaves out: those of the clone, and a new one for the run."""
    given = cfg.paths
    cfg.paths = OmegaConf.load(CONF / "paths" / "default.yaml")
    cfg.paths.merge_with(given)
    paths = cast(dict[str, Any], OmegaConf.to_container(cfg.paths, resolve=False))
    if paths["run_dir"] in (None, "???") or str(paths["run_dir"]).startswith("${hydra:"):
        setup_globals()  # ${now:}
        hydra = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(CONF / "hydra" / "default.yaml")))
        cfg.paths.run_dir = hydra["run"]["dir"]
        cfg.paths.run_dir = str(Path(cfg.paths.run_dir).absolute())


def as_override(value: Any) -> str:
    """A Python value as Hydra's overrides have it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_override(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(as_override, value)) + "]"
    if isinstance(value, str | Path):
        return in_quotes(str(value))
    return str(value)
