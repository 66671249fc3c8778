"""The one line that a sweep prints for each of its jobs."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graft.runs.folder import DONE, ERROR
from graft.runs.sweep_plan import SweepPlan
from graft.runs.sweeps import Job, read_jobs


def job_line(
    plan: SweepPlan, sweep: Path, place: int, overrides: Sequence[str], results: Mapping[str, Any] | None
) -> str:
    """Which job of how many, what it varies, its score and seconds, the best so far, and about how long is left.

    `place` counts from 0. Scores are of validation, where a run selects by it: the best one is not chosen on test.
    """
    of = f"/{plan.jobs}" if plan.jobs else ""
    parts = [f"[{place + 1}{of}] {plan.label(overrides)}"]
    if results and (found := score(results)):
        name, value, higher = found
        parts += [f"{name} {value:.4f}", f"{results.get('time', {}).get('total_s', 0):.0f} s"]
        if best := best_so_far(read_jobs(sweep), name, higher):
            parts.append(f"best so far {best[0]:.4f} ({plan.label(best[1])})")
    if left := seconds_left(plan, sweep, place):
        parts.append(f"about {duration(left)} left")
    return "  ".join(parts)


def score(results: Mapping[str, Any]) -> tuple[str, float, bool] | None:
    """(metric, value, whether higher is better) that the run was selected by, else its test score."""
    chosen = results.get("selection") or {}
    if chosen.get("monitor") and chosen.get("value") is not None:
        return chosen["monitor"], chosen["value"], chosen.get("mode") != "min"
    tested = results.get("score") or {}
    return None if tested.get("value") is None else (tested["metric"], tested["value"], tested["higher_is_better"])


def best_so_far(jobs: Sequence[Job], name: str, higher: bool) -> tuple[float, list[str]] | None:
    """The best value of a metric among finished jobs that were selected by it, and that job's overrides."""
    found = [(one, score(one.results)) for one in jobs if one.results]
    values = [
        (value[1], [f"{key}={v}" for key, v in one.overrides.items()])
        for one, value in found
        if value and value[0] == name
    ]
    return (max if higher else min)(values, key=lambda pair: pair[0], default=None)


def seconds_left(plan: SweepPlan, sweep: Path, place: int) -> float:
    """At the pace of the jobs that this sweep has finished since it began; 0 where nobody knows or none is left."""
    ends = [file.stat().st_mtime for name in (DONE, ERROR) for file in sweep.glob(f"*/{name}")]
    finished = sum(end >= plan.started for end in ends)
    if not plan.jobs or not finished:
        return 0.0
    return (time.time() - plan.started) / finished * max(0, plan.jobs - max(place + 1, finished))


def duration(seconds: float) -> str:
    """Seconds in the unit that people would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
