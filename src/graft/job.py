"""One job around `graft.run.train`: its run folder, what it does when it is not the first in there, and how it ends.

No exception and no SystemExit leaves `run_job`: in a sweep it would take the other jobs with it.
"""

import atexit
import gc
import json
import os
import shlex
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from graft import config
from graft.errors import Diverged, GraftError, Interrupted

OK, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130
CONFIG, OVERRIDES, DONE, ERROR, RESULTS = "config.yaml", "overrides.yaml", "DONE", "error.txt", "results.json"
LAST_CHECKPOINT = Path("checkpoints", "last.ckpt")
OUTPUTS = (
    *(CONFIG, OVERRIDES, DONE, ERROR, RESULTS, "metrics.csv", "checkpoints"),
    *("lr_find.csv", "lr_find.png", "nonfinite_batch.pt"),
)  # what a fresh start removes
DIVERGED = "diverged"  # status in the results
STOPPED = ".stopped"  # in a sweep's folder: Ctrl-C was pressed, no further job begins
IGNORED = ("paths", "resume")  # keys that do not make another experiment


@dataclass
class State:
    """What this process knows beyond one job."""

    exit_code: int = OK
    running: bool = False  # a job is running here, so a Ctrl-C is its to handle


STATE = State()


def run_job(cfg: DictConfig) -> float | None:
    """Run one composed config in its run folder and return its validation value (without one its test score).

    An optimising sweeper maximises or minimises what is returned, which must not be the test split's.

    The exit code goes to STATE, the error to `error.txt`. A finished job is not run again.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    overrides = OmegaConf.to_container(hydra.overrides.task)
    in_sweep = hydra.mode == RunMode.MULTIRUN
    sweep = folder.parent if in_sweep else None
    if sweep and (sweep / STOPPED).exists():
        if not any(folder.iterdir()):
            folder.rmdir()
        return None
    STATE.running = True
    settings = None
    try:
        with restored_process():
            settings = prepare(cfg, hydra, folder, sweep)
            if settings is None:
                results = json.loads((folder / RESULTS).read_text())
                if results.get("status") == DIVERGED:
                    diverged_before(folder, results["message"])
                else:
                    print(f"Already done, skipped: {folder}")
                return value_of(results)
            let_children_run_this_job(overrides, folder, resume=settings["resume"] is True)
            results = train(settings)
            if is_main_process():
                (folder / DONE).write_text("done\n")
            return value_of(results)
    except GraftError as error:
        if in_sweep or settings:
            fail(folder, overrides, str(error), str(error), USER_ERROR)
        else:
            refuse(folder, str(error))
    except Diverged as error:
        diverged(folder, overrides, str(error))
    except (Interrupted, KeyboardInterrupt) as error:
        interrupted(folder, sweep, str(error))
    except (Exception, SystemExit) as error:
        fail(folder, overrides, f"{type(error).__name__}: {error}", traceback.format_exc(), FAILED)
    finally:
        STATE.running = False
        if in_sweep:
            gc.collect()  # the model of this job, before the next one builds its own
            if not gc.get_freeze_count():
                gc.freeze()  # what the libraries hold stays to the end: going through it takes 0.3 s each time
                atexit.register(gc.unfreeze)
    return None


def train(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Train, test and write results.json; torch is imported here, after every check that does without it."""
    from graft.run import train as train_

    return train_(OmegaConf.create(dict(settings)))


def prepare(cfg: DictConfig, hydra: DictConfig, folder: Path, sweep: Path | None) -> dict[str, Any] | None:
    """Check the config, write it to the run folder and return it with every reference resolved; None if DONE."""
    if not is_main_process():
        return config.plain(cfg)
    config.check(cfg, hydra.runtime.choices)
    settings = config.plain(cfg)
    if settings["soup"]:
        settings = soup_settings(settings, OmegaConf.to_container(hydra.overrides.task))
    stored = read_yaml(folder / CONFIG)
    differences = {} if stored is None else changes(stored, settings)
    unfinished = (folder / LAST_CHECKPOINT).exists()
    if (folder / DONE).exists() and not differences:
        (folder / ERROR).unlink(missing_ok=True)
        return None
    if stored is not None and not settings["resume"]:
        if (folder / DONE).exists():
            own = config.written(cfg, settings)  # without those that only follow another key
            told = [text for key, text in differences.items() if key in own] or list(differences.values())
            raise GraftError(
                f"{folder} holds a finished run of another configuration, which differs in {', '.join(told[:5])}. "
                "Choose another folder, delete this one, or go on from its last checkpoint with resume=true."
            )
        if unfinished and not sweep:
            raise GraftError(
                f"{folder} holds an unfinished run. Go on with it: resume=true. Or choose another folder, or delete it."
            )
        if unfinished and not differences and not (folder / ERROR).exists():
            settings["resume"] = True
            print(f"Going on from {folder / LAST_CHECKPOINT}")
        else:
            remove_outputs(folder)
    for name in (DONE, ERROR):
        (folder / name).unlink(missing_ok=True)
    OmegaConf.save(OmegaConf.create(settings), folder / CONFIG)
    OmegaConf.save(hydra.overrides.task, folder / OVERRIDES)
    return settings


def soup_settings(settings: Mapping[str, Any], overrides: list[str]) -> dict[str, Any]:
    """The config of a run that makes a soup of a sweep's jobs, which is theirs."""
    from graft import recipe  # reads jobs, so it imports this module

    recipe.refuse_overrides(overrides)
    return recipe.settings(settings)


def read_yaml(path: Path) -> Any:
    """A YAML file's content, None where there is no such file."""
    return OmegaConf.to_container(OmegaConf.load(path)) if path.exists() else None


def changes(stored: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, str]:
    """The keys in which two configs are different experiments, with `key: old -> new`."""
    old, new = (
        dict(config.leaves({key: value for key, value in settings.items() if key not in IGNORED}))
        for settings in (stored, present)
    )
    return {
        key: f"{key}: {config.shown(old.get(key))} -> {config.shown(new.get(key))}"
        for key in old | new
        if old.get(key) != new.get(key)
    }


def remove_outputs(folder: Path) -> None:
    """Remove what an earlier try wrote, so that nothing of it mixes with the new one."""
    for name in OUTPUTS:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def value_of(results: Mapping[str, Any]) -> float | None:
    """What the selection rule followed, of the selected checkpoint; the test score where nothing was followed.

    None for a run that only looked for a learning rate.
    """
    value = results.get("selection", {}).get("value")
    return results.get("score", {}).get("value") if value is None else value


def refuse(folder: Path, message: str) -> None:
    """Show why a single run does not begin; it leaves no folder, and another run's folder as it was."""
    STATE.exit_code = USER_ERROR
    print(message, file=sys.stderr)
    if not any(folder.iterdir()):
        folder.rmdir()


def fail(folder: Path, overrides: list[str], message: str, details: str, exit_code: int) -> None:
    """Record and show a job that failed."""
    STATE.exit_code = exit_code
    if is_main_process():
        (folder / ERROR).write_text(details.rstrip() + "\n")
        if not (folder / OVERRIDES).exists():
            OmegaConf.save(OmegaConf.create(overrides), folder / OVERRIDES)
    print(f"FAILED {' '.join(overrides)}\n{message}\n({folder / ERROR})", file=sys.stderr)


def diverged(folder: Path, overrides: list[str], message: str) -> None:
    """Show why training stopped. The job is finished: the same command would only do it again."""
    if not is_main_process():
        return  # with code 0: anything else makes Lightning kill the main process, which is writing
    STATE.exit_code = FAILED
    (folder / DONE).write_text(f"{DIVERGED}\n")
    print(f"DIVERGED {' '.join(overrides)}\n{message}\n({folder})", file=sys.stderr)


def diverged_before(folder: Path, message: str) -> None:
    """Show that a finished job diverged, which it would do again."""
    STATE.exit_code = FAILED
    first = message.splitlines()[0]
    print(f"Diverged before, not run again: {folder}\n{first}\nTo run it anew, delete the folder.", file=sys.stderr)


def interrupted(folder: Path, sweep: Path | None, message: str) -> None:
    """Say what was saved and how to go on; a sweep begins no further job."""
    if not is_main_process():
        return  # with code 0: anything else makes Lightning kill the main process, which is saving
    STATE.exit_code = INTERRUPTED
    print(message or "Interrupted.", file=sys.stderr)
    if sweep:
        (sweep / STOPPED).touch()
    elif (folder / LAST_CHECKPOINT).exists():
        print(f"Go on with: {command(f'hydra.run.dir={quoted(folder)}', 'resume=true')}", file=sys.stderr)


def command(*more: str) -> str:
    """This process's command line with other overrides, ready to be pasted into a shell."""
    keys = {override.split("=")[0] for override in more}
    kept = [argument for argument in sys.argv if argument.split("=")[0] not in keys]
    return shlex.join(["python", *kept, *more])


def quoted(path: Path) -> str:
    """A path as the value of a Hydra override."""
    text = str(path)
    if all(character.isalnum() or character in "/-_.+" for character in text):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def is_main_process() -> bool:
    """False in the processes that Lightning starts beside this one for distributed training."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


@contextmanager
def restored_process() -> Iterator[None]:
    """Undo what a job leaves in the process: environment, Ctrl-C handler, distributed group."""
    environment, arguments = dict(os.environ), list(sys.argv)
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if is_main_thread():
            signal.signal(signal.SIGINT, handler)
        sys.argv[:] = arguments
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        distributed = sys.modules.get("torch.distributed")
        if distributed and distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()


def let_children_run_this_job(overrides: list[str], folder: Path, *, resume: bool) -> None:
    """Let the processes that Lightning starts for distributed training run this job in this folder.

    Lightning starts them with this process's command line, which in a sweep is the whole sweep, and with Hydra's
    `run.dir`, which in a sweep is not the job's folder.
    """
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        sys.argv[1:] = [*(a for a in sys.argv[1:] if is_flag(a)), *overrides, "hydra.mode=RUN"]
    if resume:
        sys.argv.append("resume=true")
    with read_write(hydra):
        hydra.run.dir = str(folder)


def is_flag(argument: str) -> bool:
    """Whether a command-line argument is neither an override nor the wish for a sweep."""
    if argument.startswith("-"):
        return argument not in ("-m", "--multirun")
    return "=" not in argument and not argument.startswith("~")


def is_main_thread() -> bool:
    """Whether signal handlers may be set here."""
    return threading.current_thread() is threading.main_thread()
