"""The one line that a sweep prints for each of its jobs."""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graft.runs.folder import DONE, ERROR
from graft.runs.sweep_plan import SweepPlan
from graft.runs.sweeps import read_job

Score = tuple[str, float, bool]  # (metric, value, whether higher is better)


@dataclass(frozen=True)
class Ended:
    """What the line needs of a job that has ended: `at` in nanoseconds since the epoch."""

    at: int
    score: Score | None = None
    overrides: tuple[str, ...] = ()


_read: dict[Path, dict[str, Ended]] = {}  # by sweep and job: reading all jobs for each line would be quadratic


def job_line(
    plan: SweepPlan, sweep: Path, place: int, overrides: Sequence[str], results: Mapping[str, Any] | None
) -> str:
    """Which job of how many, what it varies, its score and seconds, the best so far, and about how long is left.

    `place` counts from 0. Scores are of validation, where a run selects by it: the best one is not chosen on test.
    """
    of = f"/{plan.jobs}" if plan.jobs else ""
    parts = [f"[{place + 1}{of}] {plan.label(overrides)}"]
    ended = ended_jobs(sweep)
    if results and (found := score(results)):
        name, value, higher = found
        parts += [f"{name} {value:.4f}", f"{results.get('time', {}).get('total_s', 0):.0f} s"]
        if best := best_so_far(ended, name, higher):
            parts.append(f"best so far {best[0]:.4f} ({plan.label(best[1])})")
    if left := seconds_left(plan, ended, place):
        parts.append(f"about {duration(left)} left")
    return "  ".join(parts)


def score(results: Mapping[str, Any]) -> Score | None:
    """What the run was selected by, else its test score."""
    chosen = results.get("selection") or {}
    if chosen.get("monitor") and chosen.get("value") is not None:
        return chosen["monitor"], chosen["value"], chosen.get("mode") != "min"
    tested = results.get("score") or {}
    return None if tested.get("value") is None else (tested["metric"], tested["value"], tested["higher_is_better"])


def ended_jobs(sweep: Path) -> list[Ended]:
    """The jobs of a sweep's folder that have ended; what is `DONE` is read once by a process."""
    known, found = _read.get(sweep, {}), {}
    with suppress(OSError):
        for entry in os.scandir(sweep):
            if (end := end_of(entry.path, known.get(entry.name))) is not None:
                found[entry.name] = end
    _read.clear()  # of other sweeps
    _read[sweep] = found
    return list(found.values())


def end_of(folder: str, known: Ended | None) -> Ended | None:
    """How a job ended, None where it did not yet."""
    with suppress(OSError):
        at = os.stat(f"{folder}/{DONE}").st_mtime_ns
        if known is not None and known.at == at:
            return known
        job = read_job(Path(folder))
        overrides = tuple(f"{key}={value}" for key, value in job.overrides.items())
        return Ended(at, score(job.results) if job.results else None, overrides)
    with suppress(OSError):
        return Ended(os.stat(f"{folder}/{ERROR}").st_mtime_ns)
    return None


def best_so_far(ended: Iterable[Ended], name: str, higher: bool) -> tuple[float, tuple[str, ...]] | None:
    """The best value of a metric among finished jobs that were selected by it, and that job's overrides."""
    values = [(one.score[1], one.overrides) for one in ended if one.score and one.score[0] == name]
    return (max if higher else min)(values, key=lambda pair: pair[0], default=None)


def seconds_left(plan: SweepPlan, ended: Iterable[Ended], place: int) -> float:
    """At the pace of the jobs that this sweep has finished since it began; 0 where nobody knows or none is left."""
    finished = sum(one.at / 1e9 >= plan.started for one in ended)
    if not plan.jobs or not finished:
        return 0.0
    return (time.time() - plan.started) / finished * max(0, plan.jobs - max(place + 1, finished))


def duration(seconds: float) -> str:
    """Seconds in the unit that people would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
