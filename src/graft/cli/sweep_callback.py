"""Hydra's hook around a sweep: signals between jobs, the summary, the exit code."""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, read_write

from graft import paths as paths  # registers the resolvers that name folders, in parallel launchers' workers too
from graft import signals
from graft.cli import job, slurm
from graft.cli.ranks import RANKS
from graft.errors import FolderRefused, LaunchRefused, first_line
from graft.files import disk_message
from graft.race import log as race
from graft.report.summary import summarise
from graft.runs.folder import REFUSED, STOPPED, RunFolder, SweepFolder
from graft.runs.lock import Lock
from graft.runs.process import is_main_process, machine
from graft.runs.sweep_plan import forget_plan, plan_of
from graft.runs.sweeps import all_failed

NO_SWEEP = (
    "A sweep is one process, whose jobs start their own: {launcher} started several. Start it without {launcher}: "
    "python train.py -m ... trainer=ddp"
)


OPEN: list[partial[None]] = []  # what ends the sweep that runs here, where its launcher does not come to that


class SweepCallback(Callback):
    """Hydra's hook around a sweep: its folder's lock, Ctrl-C between jobs, the summary, the exit code."""

    def __init__(self) -> None:
        self.previous: Any = None
        self.shown: Any = None  # how warnings were printed before
        self.owns = False  # whether the sweep's folder is ours

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claim the folder before Hydra writes to it, forget an earlier Ctrl-C there and take over the next."""
        if RANKS.size > 1:
            if RANKS.rank:
                RANKS.follow()
            raise LaunchRefused(NO_SWEEP.format(launcher=RANKS.launcher))
        folder = Path(config.hydra.sweep.dir)
        sweep, sweeper = SweepFolder(folder), config.hydra.sweeper
        with refusal():
            sweep.take()
            sweep.claim(adopt=True)  # a sweep only adds to its folder
            self.owns = True
            sweep.remove(STOPPED)
            sweep.remove(REFUSED)
        job.STATE.exit_code = job.FAILED  # until the end was reached
        job.STATE.unrecorded = False
        overrides = [*(f"{k}={v}" for k, v in (sweeper.get("params") or {}).items()), *config.hydra.overrides.task]
        plan_of(overrides, is_grid=sweeper._target_.endswith("BasicSweeper")).write()
        self.shown = one_line_a_job()
        OPEN[:] = [partial(self.on_multirun_end, config=config)]
        if not signals.in_main_thread():
            return

        stopping = False

        def stop(signum: int, frame: FrameType | None) -> None:
            nonlocal stopping
            if job.STATE.running and signum != signal.SIGINT:
                signals.stop(signum, frame)
            elif (job.STATE.running or stopping) and signum == signal.SIGINT:
                raise KeyboardInterrupt
            elif not stopping:
                stopping = True
                folder.mkdir(parents=True, exist_ok=True)
                (folder / job.STOPPED).write_text(f"{int(signum)}\n")
                signals.say(signum, "no further job begins, the running ones finish or save.")
                if signum != signal.SIGINT:  # which a terminal sends to the parallel launcher's workers too
                    pass_on(signum, folder)

        self.previous = signals.take_over(stop)

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse a run's folder before Hydra makes it or writes to it, or take the one that the first process has."""
        if RANKS.rank:
            decided = RANKS.follow()
            if "exit_code" in decided:
                raise LaunchRefused("")
            with read_write(config.hydra), read_write(config):
                config.hydra.run.dir, config.resume = decided["folder"], decided["resume"]
        elif is_main_process():
            with refusal():
                RunFolder(config.hydra.run.dir, beside=job.written_by_hydra(config.hydra)).check_owner()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Summarise and set the exit code."""
        if not self.owns:  # Hydra 1.4 comes here after a refused start too
            return
        OPEN.clear()
        if self.shown is not None:
            warnings.showwarning = self.shown
        forget_plan()
        folder = Path(config.hydra.sweep.dir).absolute()
        write_report(folder)
        rows = summarise(folder)
        failed, refused = all_failed(rows), SweepFolder(folder).refused()
        all_diverged = bool(rows) and all(one.diverged for row in rows for one in row.jobs)
        job.STATE.exit_code = job.FAILED if all_diverged or job.STATE.unrecorded else job.OK
        if failed:  # 2 where all that is wrong are the jobs' folders
            only_refused = len(failed) <= len(refused) and not job.STATE.unrecorded
            job.STATE.exit_code = job.USER_ERROR if only_refused else job.FAILED
        if sweeper_is_race(config) and (raced := race.read(folder)) and raced["result"]:
            job.STATE.exit_code = job.OK  # candidates that failed were dropped
        signum = 0
        if (folder / job.STOPPED).exists():
            signum = int((folder / job.STOPPED).read_text() or signal.SIGINT)
            job.STATE.exit_code = signals.exit_code(signum)
            again = job.command(f"hydra.sweep.dir={job.quoted(folder)}")
            by = "interrupted" if signum == signal.SIGINT else f"stopped by {signals.name_of(signum)}"
            print(f"The sweep was {by}. To run what is missing: {again}", file=sys.stderr)
        SweepFolder(folder).release()
        if config.get("resume") == job.AUTO:
            slurm.requeue(signum)
        if self.previous is not None:
            signals.give_back(self.previous)

    def __getstate__(self) -> dict[str, Any]:
        """What goes to parallel workers: no signal handler."""
        return {"previous": None, "owns": False, "shown": None}


def lost(message: str, sweep: Path) -> None:
    """Say that a job's process is gone, and how to go on with it; the sweep's exit code tells it too."""
    job.STATE.unrecorded = True
    print(f"{message}\nGo on with: {job.command(f'hydra.sweep.dir={job.quoted(sweep)}')}", file=sys.stderr)


def give_up(error: Exception) -> bool:
    """End a sweep whose launcher raises, with a summary of what is done; False where no sweep runs here."""
    if not OPEN:
        return False
    end = OPEN.pop()
    lost(f"LOST The launcher gave up: {first_line(error)}", Path(end.keywords["config"].hydra.sweep.dir).absolute())
    end()
    return True


def sweeper_is_race(config: DictConfig) -> bool:
    """Whether the sweep is a race, which has a result although some of its candidates failed."""
    return str(config.hydra.sweeper._target_).endswith("RaceSweeper")


def write_report(folder: Path) -> None:
    """Write report.html and print its first line; that it fails is said, and changes nothing of the sweep."""
    from graft.report import publish  # matplotlib and scipy, which nothing needs before

    try:
        if lines := publish.of_sweep(folder):
            print(f"\n{lines}")
    except Exception as error:
        print(f"There is no report: {first_line(error)}. Try: graft report {folder}", file=sys.stderr)


def one_line_a_job() -> Callable[..., None]:
    """Leave out Hydra's line before each job, and every warning but the first of its kind; how they were printed."""
    for name in ("hydra._internal.core_plugins.basic_launcher", "hydra_plugins.hydra_joblib_launcher._core"):
        logging.getLogger(name).addFilter(lambda record: not str(record.msg).startswith("\t#"))
    shown, seen = warnings.showwarning, set()

    def show_once(message: Any, category: Any, *arguments: Any, **options: Any) -> None:
        if (category, str(message)) not in seen:
            seen.add((category, str(message)))
            shown(message, category, *arguments, **options)

    warnings.showwarning = show_once
    return shown


def pass_on(signum: int, folder: Path) -> None:
    """Send a signal to the processes of this machine that work in the folders of a sweep's jobs."""
    for job_folder in (path for path in folder.iterdir() if path.is_dir()):
        holder = Lock(job_folder).holder_now()
        if holder and holder.machine == machine() and holder.pid != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(holder.pid, signum)


@contextmanager
def refusal() -> Iterator[None]:
    """Let a refused folder end the command; see LaunchRefused."""
    try:
        yield
    except FolderRefused as error:
        raise LaunchRefused(str(error)) from None
    except OSError as error:
        message = disk_message(error, Path(error.filename or "."))
        raise LaunchRefused(message or str(error)) from None
