"""Graft as its users call it: `train.py` as a process of its own, and what it leaves in its folder."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.fit_clock import FILE
from benchmarks.measure import Cost
from graft.cli.job import quoted

ROOT = Path(__file__).parents[1]
CONF = Path(__file__).parent / "conf"  # the benchmark's own data and backbone, as anyone may add some
LAST_LINES = 15  # of a failed command's output
# A process counts the memory of the one that started it into its own peak, as it was when it started. So something
# small starts train.py; the exit keeps the shell from becoming train.py itself.
THROUGH_A_SHELL = ("sh", "-c", '"$@"; exit $?', "sh")


class CommandError(Exception):
    """A train.py command that failed; the message ends with what it printed."""


def environment(cache: Path | None = None) -> dict[str, str]:
    """Environment of a train.py process: W&B offline, this checkout, and a cache folder where one is given."""
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    own = {"WANDB_MODE": "offline", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if cache is not None:
        own["GRAFT_CACHE"] = str(cache)
    # Where this is set, every process would compile the sources of torch again: seconds, each time.
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | own


def command(*arguments: str) -> list[str]:
    """The command line of train.py that also finds the benchmark's own config files."""
    return [sys.executable, str(ROOT / "train.py"), "--config-dir", str(CONF), *arguments, "allow=[benchmarks]"]


def execute(arguments: Sequence[str], cache: Path) -> None:
    """Run train.py to its end; raises CommandError where it fails."""
    outcome = subprocess.run(
        [*THROUGH_A_SHELL, *command(*arguments)],
        env=environment(cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if outcome.returncode:
        tail = "\n".join(outcome.stdout.splitlines()[-LAST_LINES:])
        raise CommandError(f"train.py {' '.join(arguments)} ended with {outcome.returncode}:\n{tail}")


def run(overrides: Sequence[str], folder: Path, cache: Path) -> dict[str, Any]:
    """The results of one run in a new folder."""
    execute([*overrides, f"hydra.run.dir={quoted(folder)}"], cache)
    return json.loads((folder / "results.json").read_text())


def fit_cost(overrides: Sequence[str], folder: Path, cache: Path) -> Cost:
    """Of the fit of one run in a new folder, with all that it prepares, such as features.

    Baselines are left out: they read the same features and would make them before the fit.
    """
    results = run([*overrides, "baselines=none", "callbacks=fit_clock"], folder, cache)
    return Cost(fit_seconds(results), json.loads((folder / FILE).read_text())["cpu_s"])


@dataclass(frozen=True)
class Job:
    """One finished job of a sweep; `memory_mb` is resident after its end.

    Times are in seconds of an arbitrary clock, and those of `_cpu` in seconds of its process's processor time.
    """

    sweep_began: float
    began: float
    ended: float
    sweep_began_cpu: float
    began_cpu: float
    ended_cpu: float
    memory_mb: float
    results: dict[str, Any]


def sweep(overrides: Sequence[str], folder: Path, cache: Path) -> list[Job]:
    """The jobs of a sweep in one process, in their order."""
    log = folder.with_suffix(".jobs")
    callback = "hydra.callbacks.job_log"
    noted = [f"+{callback}._target_=benchmarks.job_log.JobLog", f"+{callback}.file={quoted(log)}"]
    execute(["-m", *overrides, *noted, f"hydra.sweep.dir={quoted(folder)}"], cache)
    jobs = [json.loads(line) for line in log.read_text().splitlines()]
    results = [json.loads((Path(job["folder"]) / "results.json").read_text()) for job in jobs]
    return [
        Job(**{key: value for key, value in job.items() if key != "folder"}, results=result)
        for job, result in zip(jobs, results, strict=True)
    ]


def gaps(jobs: Sequence[Job]) -> list[float]:
    """Seconds between the ends of consecutive jobs: what a job took, all of it, without the first one."""
    return [later.ended - earlier.ended for earlier, later in pairwise(jobs)]


def fit_seconds(results: dict[str, Any]) -> float:
    """Seconds of the fit and of all that prepared it, such as features made before: not pretraining and test."""
    return sum(s for name, s in results["time"].items() if name not in ("total_s", "pretrain_s", "test_s"))
