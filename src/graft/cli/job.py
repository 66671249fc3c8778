"""One job around `graft.run.train`: its run folder, what it does when it is not the first in there, and how it ends.

No exception and no SystemExit leaves `run_job`: in a sweep it would take the other jobs with it.
"""

import functools
import gc
import os
import pickle
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf._utils import OmegaConfDumper, get_omega_conf_dumper

from graft import config, signals
from graft.cli import slurm
from graft.cli.origin import with_origin
from graft.cli.program import program, with_program
from graft.cli.ranks import RANKS
from graft.config.facts import attribute
from graft.errors import Diverged, GraftError, Interrupted, Pruned
from graft.files import disk_message, write_whole
from graft.garbage import freeze_libraries
from graft.report.sweep_line import job_line
from graft.runs import ingredients, record
from graft.runs.folder import CONFIG, DONE, ERROR, LAST_CHECKPOINT, OVERRIDES, STOPPED, RunFolder, SweepFolder, quoted
from graft.runs.process import is_main_process
from graft.runs.sweep_plan import read_plan
from graft.runs.untrusted import read_yaml

if TYPE_CHECKING:  # of torch, which only a run imports
    from graft.run import Setup

OK, FAILED, USER_ERROR = 0, 1, 2  # exit codes beside those of graft.signals
AUTO = "auto"  # of `resume`
IGNORED = ("paths", "resume", "allow")  # keys that do not make another experiment


@dataclass
class State:
    """What this process knows beyond one job."""

    exit_code: int = OK
    unrecorded: bool = False  # a job of the sweep failed or was lost, and no file says so
    running: bool = False  # a job is running here, so a Ctrl-C is its to handle
    shown: set[tuple[float, str]] = field(default_factory=set)  # when a sweep began, an error that it has shown


STATE = State()


@signals.scheduler_signals()
def run_job(cfg: DictConfig, setup: "Setup | None" = None) -> float | None:
    """Run one composed config in its run folder and return what its selection rule followed, None where it did not.

    `setup` is what was already done of it, by graft.cli.stacked. An optimising sweeper maximises or minimises what is
    returned, which is never the test split's.

    The exit code goes to STATE, the error to `error.txt`. A finished job is not run again. The folder is locked while
    it is worked in, and left as it was where it is not Graft's or another process works there.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    run = RunFolder(folder, beside=written_by_hydra(hydra))
    overrides = cast(list[str], OmegaConf.to_container(hydra.overrides.task))
    in_sweep = hydra.mode == RunMode.MULTIRUN
    sweep = folder.parent if in_sweep else None
    if sweep and (sweep / STOPPED).exists():
        run.release()
        return None
    STATE.running = True
    settings: dict[str, Any] | None = None
    stopped_by = 0
    results: Mapping[str, Any]
    try:
        with restored_process():
            if cfg.resume == AUTO:
                check_fixed_folder(hydra, in_sweep=in_sweep)
            resolved_before = setup.config if setup else None
            settings = prepare(cfg, hydra.runtime.choices, overrides, run, sweep, resolved_before)
            if settings is None:
                results = record.read(folder)
                if results.get("status") == record.DIVERGED:
                    diverged_before(folder, results["message"])
                elif results.get("status") == record.PRUNED:
                    print(f"Pruned before, not run again: {folder}")
                else:
                    print(f"Already done, skipped: {folder}")
                return record.value_of(results)
            check_followed(hydra, settings)
            RANKS.decide(folder=str(folder.absolute()), resume=settings["resume"])
            let_children_run_this_job(overrides, folder, resume=settings["resume"] is True)
            results = execute(settings, setup if not settings["resume"] else None)
            if is_main_process():
                write_whole(folder / DONE, f"{record.FINISHED}\n")
                if sweep and (plan := read_plan()):
                    print(job_line(plan, sweep, hydra.job.num, overrides, results), flush=True)
            return record.value_of(results)
    except GraftError as error:
        message = with_origin(str(error), hydra, overrides)
        if settings or (in_sweep and run.is_writable):
            fail(run, overrides, message, message, USER_ERROR)
        else:
            refuse(folder, sweep, overrides, message)
    except Diverged as error:
        diverged(folder, overrides, str(error))
    except Pruned as error:
        pruned(folder, overrides, str(error))
    except (Interrupted, KeyboardInterrupt) as error:
        stopped_by = interrupted(folder, sweep, error, goes_on_itself=cfg.resume == AUTO)
    except (Exception, SystemExit) as error:
        known = disk_message(error, folder) if isinstance(error, OSError) else None
        fail(run, overrides, known or f"{type(error).__name__}: {error}", known or traceback.format_exc(), FAILED)
    finally:
        if is_main_process():
            run.release()
        STATE.running = False
        if stopped_by and not in_sweep and cfg.resume == AUTO:  # last: SLURM may end this process at once
            slurm.requeue(stopped_by)
        if in_sweep and setup is None:  # else the models of all jobs were built before, see graft.cli.stacked
            gc.collect()  # the model of this job, before the next one builds its own
            freeze_libraries()
    return None


def execute(settings: Mapping[str, Any], setup: "Setup | None" = None) -> dict[str, Any]:
    """Do what a checked config asks for; torch is imported here, after every check that does without it."""
    if setup:
        from graft.run import train

        return train(settings, setup)
    if settings["soup"]:
        from graft.commands.soup import soup as verb
    elif settings["tune"]:
        from graft.commands.tune import tune as verb
    else:
        from graft.run import train as verb
    return verb(settings)


def prepare(
    cfg: DictConfig,
    choices: Mapping[str, str | None] | None,
    overrides: list[str],
    run: RunFolder,
    sweep: Path | None,
    known: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Check the config, write it to the run folder and return it with every reference resolved; None if DONE.

    `choices` are Hydra's, of an option for every group; `known` is the resolved config, where it was needed before.
    From here on the folder is locked.
    """
    if not is_main_process():
        settings = config.check(cfg, choices)
        if settings["resume"] == AUTO:
            settings["resume"] = True if (run.path / LAST_CHECKPOINT).exists() else None
        return settings
    if sweep:
        run.take()  # a mistake in the config is written there too
        if not run.is_older():
            run.claim()
    settings = config.check(cfg, choices, known)
    RANKS.check(settings["trainer"])
    if settings["soup"]:
        ingredients.check_overrides(overrides)
        settings = ingredients.settings(settings)
    run.check_owner()
    if not sweep and is_done(run.path, cfg, settings):  # reported even where nothing can be written
        return None
    run.take()
    if is_done(run.path, cfg, settings):
        if run.record:
            run.remove(ERROR)
        return None
    if settings["resume"] == AUTO:
        settings["resume"] = resolved(run.path, cfg, settings)
    elif not settings["resume"] and (run.path / LAST_CHECKPOINT).exists():
        if not sweep:
            raise GraftError(
                f"{run.path} holds an unfinished run. Go on with it: resume=true. Or choose another folder, or delete "
                "it."
            )
        stored = stored_config(run.path)
        if stored is not None and not changes(stored, settings) and not (run.path / ERROR).exists():
            settings["resume"] = True
            print(f"Going on from {run.path / LAST_CHECKPOINT}")
    run.claim(adopt=bool(settings["resume"]))
    if not settings["resume"] and not run.is_new():
        run.start_anew()
    for name in (DONE, ERROR):
        run.remove(name)
    write_whole(run.path / CONFIG, yaml_of(settings))
    write_whole(run.path / OVERRIDES, OmegaConf.to_yaml(OmegaConf.create(overrides)))
    return settings


class Written(OmegaConfDumper):
    """OmegaConf's own way to write YAML; a container that stands twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        """Whether it is written again where it was written before."""
        return True


def yaml_of(settings: Mapping[str, Any]) -> str:
    """A plain config as `OmegaConf.to_yaml` writes it, in a third of the time: no node is made of any value."""
    return "".join(yaml_of_group(pickle.dumps({key: value})) for key, value in settings.items())


@functools.lru_cache(maxsize=256)
def yaml_of_group(pickled: bytes) -> str:
    """A pickled mapping as YAML; most groups of a sweep's job are those of the job before."""
    get_omega_conf_dumper()  # lets the class know how words are quoted
    settings = pickle.loads(pickled)
    return yaml.dump(settings, default_flow_style=False, allow_unicode=True, sort_keys=False, Dumper=Written)


def is_done(folder: Path, cfg: DictConfig, settings: Mapping[str, Any]) -> bool:
    """Whether the folder holds this very run, finished; GraftError for another one that is not gone on with."""
    if not (folder / DONE).exists():
        return False
    stored = stored_config(folder)
    differences = {} if stored is None else changes(stored, settings)
    if differences and settings["resume"] in (None, False, AUTO):
        raise GraftError(
            f"{folder} holds a finished run of another configuration, which {differs(differences, cfg, settings)}. "
            "Choose another folder, delete this one, or go on from its last checkpoint with resume=true."
        )
    return not differences


def differs(differences: Mapping[str, str], cfg: DictConfig, settings: Mapping[str, Any]) -> str:
    """The end of a sentence that names the first keys in which a folder's run is another one."""
    own = config.written(cfg, settings)  # without those that only follow another key
    shown = [text for key, text in differences.items() if key in own] or list(differences.values())
    return f"differs in {', '.join(shown[:5])}"


def resolved(folder: Path, cfg: DictConfig, settings: Mapping[str, Any]) -> bool | None:
    """What `resume=auto` means: true where the folder has a checkpoint of this configuration, null without one.

    GraftError for a checkpoint of another configuration: the same command goes on, another one has to say so.
    """
    if not (folder / LAST_CHECKPOINT).exists():
        return None
    stored = stored_config(folder)
    if stored is not None and (differences := changes(stored, settings)):
        raise GraftError(
            f"{folder} holds an unfinished run of another configuration, which {differs(differences, cfg, settings)}. "
            "resume=auto goes on with the same one only; to go on with these settings: resume=true. Or choose another "
            "folder, or delete it."
        )
    print(f"Going on from {folder / LAST_CHECKPOINT}")
    return True


def check_fixed_folder(hydra: HydraConf, *, in_sweep: bool) -> None:
    """GraftError for `resume=auto` in a folder that is new with every command: it has nothing to go on from."""
    key, part = ("hydra.sweep.dir", "sweep") if in_sweep else ("hydra.run.dir", "run")
    unresolved = cast(dict[str, Any], OmegaConf.to_container(cast(DictConfig, hydra), resolve=False))
    if any(resolver in unresolved[part]["dir"] for resolver in ("${now:", "${graft.run_id:")):
        raise GraftError(
            f"`resume=auto` in a folder that is new with every command has nothing to go on from. Name the folder: "
            f"{key}=logs/<name>/{part}s/<folder>"
        )


def check_followed(hydra: HydraConf, settings: Mapping[str, Any]) -> None:
    """GraftError where an optimising sweeper is given a job whose rule follows nothing that could be optimised."""
    sweeper = str(hydra.sweeper["_target_"])
    grid = hydra.mode != RunMode.MULTIRUN or sweeper.endswith("BasicSweeper")
    rule = settings["selection"]["_target_"]
    follows = attribute(rule, "domains", ()) or attribute(rule, "holds_out", False)
    last_of_race = sweeper.endswith("RaceSweeper") and settings["data"].get("refit")  # decides nothing
    if not grid and not follows and not settings["tune"] and not last_of_race:
        raise GraftError(
            f"`selection={hydra.runtime.choices.get('selection')}` with the sweeper {sweeper}: it follows no metric "
            "that could be optimised but the test split's. Use selection=target_val, budget, entropy or source_val."
        )


def stored_config(folder: Path) -> Any:
    """What the folder's run was configured with, None where it says nothing; GraftError for a torn file."""
    if not (folder / CONFIG).exists():
        return None
    stored = read_yaml(folder / CONFIG)
    if not isinstance(stored, Mapping):
        raise GraftError(
            f"{folder / CONFIG} is torn: it holds no configuration. Delete it where you know that the run is the same, "
            "or take it from a copy."
        )
    return stored


def written_by_hydra(hydra: HydraConf) -> list[str]:
    """What Hydra puts into a new folder before the job begins, where its own options ask for it."""
    return [name for name in (hydra.output_subdir, f"{hydra.job.name}.log") if name]


def changes(stored: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, str]:
    """The keys in which two configs are different experiments, with `key: old -> new`."""
    old, new = (
        {
            key: value.rpartition(".")[2] if key.endswith("_target_") and str(value).startswith("graft.") else value
            for key, value in config.leaves({key: v for key, v in settings.items() if key not in IGNORED})
        }
        for settings in (stored, present)
    )
    return {
        key: f"{key}: {config.shown(old.get(key))} -> {config.shown(new.get(key))}"
        for key in old | new
        if old.get(key) != new.get(key)
    }


def refuse(folder: Path, sweep: Path | None, overrides: list[str], message: str) -> None:
    """Show why a job does not begin; it leaves no folder, and another one's folder as it was."""
    STATE.exit_code = USER_ERROR
    if sweep and is_main_process():
        try:
            SweepFolder(sweep).refuse(folder.name, overrides, message)
        except OSError:  # of a full disk: what is printed has to do, and the sweep goes on
            STATE.unrecorded = True
    if is_main_process():
        show_failure(overrides, message) if sweep else print(with_program(message), file=sys.stderr)


def fail(run: RunFolder, overrides: list[str], message: str, details: str, exit_code: int) -> None:
    """Record and show a job that failed."""
    STATE.exit_code = exit_code
    file = ""
    if is_main_process() and run.is_writable:
        try:
            write_error(run, overrides, details)
            file = f"\n({run.path / ERROR})"
        except OSError:  # as above
            STATE.unrecorded = True
    elif is_main_process():  # not even the lock or the record of a new folder found room
        STATE.unrecorded = True
    show_failure(overrides, message, file)


def show_failure(overrides: list[str], message: str, file: str = "") -> None:
    """Print why a job failed, and in which file that stands; an error that the sweep has shown before in one line."""
    plan = read_plan()
    if plan and (plan.started, message) in STATE.shown:
        print(f"FAILED {plan.label(overrides)}: the same error", file=sys.stderr)
        return
    if plan:
        STATE.shown.add((plan.started, message))
    print(with_program(f"FAILED {' '.join(overrides)}\n{message}{file}"), file=sys.stderr)


def write_error(run: RunFolder, overrides: list[str], details: str) -> None:
    """Leave in a job's folder why it failed."""
    write_whole(run.path / ERROR, details.rstrip() + "\n")
    if not (run.path / OVERRIDES).exists():
        write_whole(run.path / OVERRIDES, OmegaConf.to_yaml(OmegaConf.create(overrides)))


def diverged(folder: Path, overrides: list[str], message: str) -> None:
    """Show why training stopped. The job is finished: the same command would only do it again."""
    if not is_main_process():
        return  # with code 0: anything else makes Lightning kill the main process, which is writing
    STATE.exit_code = FAILED
    with suppress(OSError):
        write_whole(folder / DONE, f"{record.DIVERGED}\n")
    print(f"DIVERGED {' '.join(overrides)}\n{message}\n({folder})", file=sys.stderr)


def pruned(folder: Path, overrides: list[str], message: str) -> None:
    """Say that a study gave the job up. It is finished, and nothing is wrong."""
    with suppress(OSError):
        write_whole(folder / DONE, f"{record.PRUNED}\n")
    plan = read_plan()
    of = f"/{plan.jobs}" if plan and plan.jobs else ""
    print(f"[{HydraConfig.get().job.num + 1}{of}] {plan.label(overrides) if plan else ' '.join(overrides)}  {message}")


def diverged_before(folder: Path, message: str) -> None:
    """Show that a finished job diverged, which it would do again."""
    STATE.exit_code = FAILED
    first = message.splitlines()[0]
    print(f"Diverged before, not run again: {folder}\n{first}\nTo run it again, delete the folder.", file=sys.stderr)


def interrupted(
    folder: Path, sweep: Path | None, error: Interrupted | KeyboardInterrupt, *, goes_on_itself: bool
) -> int:
    """Say what was saved and how to go on; a sweep begins no further job. Returns the signal, 0 in other processes.

    `goes_on_itself` says that the same command goes on.
    """
    if not is_main_process():
        return 0  # with code 0: anything else makes Lightning kill the main process, which is saving
    signum = int(getattr(error, "signum", signal.SIGINT))
    STATE.exit_code = signals.exit_code(signum)
    print(str(error) or f"{signals.how_stopped(signum)}.", file=sys.stderr)
    if sweep:
        if signum == signal.SIGINT or not signals.IN_SUBMITIT:  # which stops one job alone
            with suppress(OSError):
                (sweep / STOPPED).write_text(f"{signum}\n")
    elif (folder / LAST_CHECKPOINT).exists():
        more = () if goes_on_itself else (f"hydra.run.dir={quoted(folder)}", "resume=true")
        print(f"Go on with: {command(*more)}", file=sys.stderr)
    return signum


def command(*more: str) -> str:
    """This process's command line with other overrides, ready to be pasted into a shell."""
    keys = {override.split("=")[0] for override in more}
    kept = [argument for argument in sys.argv[1:] if argument.split("=")[0] not in keys]
    typed = program()
    words = ["python", sys.argv[0]] if typed == "python train.py" else typed.split()
    return shlex.join([*words, *kept, *more])


@contextmanager
def restored_process() -> Iterator[None]:
    """Undo what a job leaves in the process: environment, signal handlers, distributed group."""
    environment, arguments = dict(os.environ), list(sys.argv)
    had_group = has_process_group()  # a notebook's own stays
    try:
        with signals.restored():
            yield
    finally:
        sys.argv[:] = arguments
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        if has_process_group() and not had_group:
            sys.modules["torch.distributed"].destroy_process_group()


def has_process_group() -> bool:
    """Whether this process is in a distributed group; without importing torch."""
    distributed = sys.modules.get("torch.distributed")
    return bool(distributed and distributed.is_available() and distributed.is_initialized())


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
    with read_write(cast(DictConfig, hydra)):  # HydraConf is only its schema
        hydra.run.dir = str(folder)


def is_flag(argument: str) -> bool:
    """Whether a command-line argument is neither an override nor the wish for a sweep."""
    if argument.startswith("-"):
        return argument not in ("-m", "--multirun")
    return "=" not in argument and not argument.startswith("~")
