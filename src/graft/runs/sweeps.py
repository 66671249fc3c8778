"""Reading a sweep's folder: its jobs, and rows of jobs that differ in seed, split and fold alone."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graft.errors import GraftError
from graft.runs import record
from graft.runs.folder import DONE, ERROR, OVERRIDES, REFUSED, RESULTS, SweepFolder
from graft.runs.recipe import recipe_before_small_gains
from graft.runs.record import TestSplit, split_of, unit_of
from graft.runs.roles import REPEATS, role
from graft.runs.untrusted import read_overrides

MIN_SEEDS = 3  # below, an interval would be wider than anything it could tell


@dataclass
class Job:
    """One job's folder in a sweep."""

    folder: str
    overrides: dict[str, str]
    results: Mapping[str, Any] | None = None  # of a finished job
    error: str = ""  # first line, of a failed job
    file: str = ""  # where the whole of it stands
    diverged: str = ""  # first line, of a job whose training met values that are not finite
    pruned: str = ""  # the same, of a trial that its study gave up
    path: Path = Path()  # of the folder


@dataclass
class Row:
    """Jobs that differ in nothing but their seed, their split and their fold."""

    overrides: dict[str, str]
    jobs: list[Job] = field(default_factory=list)

    @property
    def finished(self) -> list[Mapping[str, Any]]:
        """Results of the jobs that have any."""
        return [job.results for job in self.jobs if job.results]

    @property
    def failed(self) -> list[Job]:
        """Jobs that ended with an error."""
        return [job for job in self.jobs if job.error]

    @property
    def diverged(self) -> list[Job]:
        """Jobs that are done without a result."""
        return [job for job in self.jobs if job.diverged]

    @property
    def pruned(self) -> list[Job]:
        """Jobs that a study gave up."""
        return [job for job in self.jobs if job.pruned]

    @property
    def unfinished(self) -> int:
        """Number of jobs that were interrupted or still run."""
        return len(self.jobs) - len(self.finished) - len(self.failed) - len(self.diverged) - len(self.pruned)

    @property
    def lost(self) -> str:
        """What became of the jobs without a result, such as `1 diverged, 2 failed`; empty where all have one."""
        numbers = {"diverged": len(self.diverged), "failed": len(self.failed)}
        numbers |= {"pruned": len(self.pruned), "unfinished": self.unfinished}
        return ", ".join(f"{number} {word}" for word, number in numbers.items() if number)

    @property
    def scores(self) -> list[float]:
        """The scores that are numbers."""
        return self.numbers("score", "value")

    @property
    def by_split(self) -> dict[TestSplit, float]:
        """The mean score of each split or fold."""
        found: dict[TestSplit, list[float]] = {}
        for results in self.finished:
            if (value := number(results, ("score", "value"))) is not None:
                found.setdefault(split_of(results), []).append(value)
        return {split: statistics.fmean(scores) for split, scores in found.items()}

    @property
    def units(self) -> list[float]:
        """What its interval is over: the means of its splits where there are several, else the scores of its seeds."""
        means = list(self.by_split.values())
        return means if len(means) > 1 else self.scores

    @property
    def unit(self) -> str:
        """What its units are called."""
        return unit_of(self.finished, len(self.by_split))

    @property
    def overlap(self) -> float:
        """How much its units share: of several splits test samples over all others, of seeds on one split nothing."""
        return statistics.fmean(map(test_over_rest, self.finished)) if len(self.by_split) > 1 else 0.0

    def numbers(self, *path: str) -> list[float]:
        """A number in the results of every job that has it, e.g. numbers("tuning", "lr", "value")."""
        return [value for results in self.finished if (value := number(results, path)) is not None]

    def mean(self, *path: str) -> float | None:
        """Mean over the jobs of a number in their results, e.g. mean("time", "fit_s")."""
        return mean(self.numbers(*path))


def read_jobs(folder: Path) -> list[Job]:
    """Every job of a sweep's folder, in the order of their overrides."""
    jobs = []
    refused = {one["folder"]: one for one in SweepFolder(folder).refused()}
    for one in refused.values():
        overrides = dict(split_override(line) for line in one["overrides"])
        error = first_error_line(one["error"])
        jobs.append(Job(one["folder"], overrides, error=error, file=REFUSED, path=folder / one["folder"]))
    for file in folder.glob(f"*/{OVERRIDES}"):
        if file.parent.name not in refused:
            jobs.append(read_job(file.parent))
    return sorted(jobs, key=lambda one: list(one.overrides.items()))


def read_job(folder: Path) -> Job:
    """A job by its folder; one whose record cannot be read counts as failed."""
    overrides = dict(split_override(line) for line in read_overrides(folder / OVERRIDES))
    overrides.pop("resume", None)  # which makes no other experiment
    job = Job(folder.name, overrides, path=folder)
    if (folder / ERROR).exists():  # even beside DONE: then the folder refused another configuration
        job.error, job.file = first_error_line((folder / ERROR).read_text()), f"{folder.name}/{ERROR}"
    elif (folder / DONE).exists():
        try:
            results = record.read(folder)
        except GraftError as error:
            job.error, job.file = str(error), f"{folder.name}/{RESULTS}"
        else:
            if results.get("status") == record.DIVERGED:
                job.diverged = first_error_line(results["message"])
            elif results.get("status") == record.PRUNED:
                job.pruned = first_error_line(results["message"])
            else:
                job.results = results
    return job


def split_override(line: str) -> tuple[str, str]:
    """`+key=value` as (key, value)."""
    key, _, value = line.partition("=")
    return key.lstrip("+~"), value


def first_error_line(text: str) -> str:
    """What went wrong in one line: of a traceback its exception, of a message its first line and first point."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return "unknown error"
    if lines[0].startswith("Traceback"):
        heads = ("Traceback", "During handling", "The above exception")
        return [line for line in lines if not line.startswith((" ", *heads))][-1]
    return " ".join(line.strip() for line in lines[:2]) if lines[0].endswith(":") else lines[0]


def fold(jobs: Iterable[Job]) -> list[Row]:
    """Jobs grouped by everything but the keys that repeat them, best first, those without a score last.

    Best by validation, as the selection rule sees it: an order by test scores would choose on the test split. What
    diverged in half of its jobs or more comes after what did not: the lucky seeds do not stand for it. Where a
    job selected nothing (selection=last) there is no such number, and the order is by test score. Under
    selection=budget it is never that: what has no score of folds comes last, and the recipe's own configuration before
    those that hardly gain on it.
    """
    rows: dict[tuple[tuple[str, str], ...], Row] = {}
    for one in jobs:
        rest = {key: value for key, value in one.overrides.items() if key not in REPEATS}
        rows.setdefault(tuple(sorted(rest.items())), Row(rest)).jobs.append(one)

    def rank(row: Row) -> tuple[bool, bool, float]:
        value = row.mean("selection", "value") if selected or in_budget else mean(row.scores)
        if value is None:
            return True, True, 0.0
        unstable = 2 * len(row.diverged) >= len(row.jobs)
        return False, unstable, -value if is_higher_better(row.finished[0]) else value

    def is_higher_better(results: Mapping[str, Any]) -> bool:
        mode = results.get("selection", {}).get("mode") if selected or in_budget else None
        return mode == "max" if mode else bool(results["score"]["higher_is_better"])

    selected, in_budget = all_selected(rows.values()), all_chose_by(rows.values(), "budget")
    ordered = sorted(rows.values(), key=rank)
    if not in_budget:
        return ordered
    return [row for group in by_setting(ordered) for row in recipe_before_small_gains(group)]


def by_setting(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of each setting (data, network), in the order in which they come."""
    settings: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    for row in rows:
        place = {key: value for key, value in row.overrides.items() if role(key) == "setting"}
        settings.setdefault(tuple(sorted(place.items())), []).append(row)
    return [*settings.values()]


def all_chose_by(rows: Iterable[Row], rule: str) -> bool:
    """Whether a selection rule served every finished job, of which there are some."""
    rules = [results.get("selection", {}).get("rule") for row in rows for results in row.finished]
    return bool(rules) and set(rules) == {rule}


def all_selected(rows: Iterable[Row]) -> bool:
    """Whether every finished job followed one validation metric to select its checkpoint."""
    monitors = {results.get("selection", {}).get("monitor") for row in rows for results in row.finished}
    return len(monitors) == 1 and None not in monitors


def split_overrides(jobs: Sequence[Job]) -> tuple[list[str], dict[str, str]]:
    """The keys in which jobs differ, seed and split apart, and the overrides that all of them share."""
    keys = list(dict.fromkeys(key for one in jobs for key in one.overrides))
    values = {key: {one.overrides.get(key) for one in jobs} for key in keys}
    same = {key: jobs[0].overrides[key] for key in keys if len(values[key]) == 1}
    return [key for key in keys if key not in same and key not in REPEATS], same


def number(results: Mapping[str, Any], path: Sequence[str]) -> float | None:
    """A number in nested results, None where there is none."""
    value: Any = results
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) else None


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the numbers among the values, None without any."""
    numbers = [value for value in values if value is not None]
    return statistics.fmean(numbers) if numbers else None


def test_over_rest(results: Mapping[str, Any]) -> float:
    """Test samples over all others of the target."""
    target = results["data"]["target"]
    return float(target["test"] / max((target.get("pool") or target["train"]) + target["val"], 1))


def metric_names(rows: Iterable[Row]) -> list[str]:
    """Names of the jobs' scores; a job that only looked for a learning rate has none."""
    return [results["score"]["metric"] for row in rows for results in row.finished if "score" in results]


def only_tuned(rows: Sequence[Row]) -> bool:
    """Whether the jobs looked for a learning rate and trained nothing."""
    finished = [results for row in rows for results in row.finished]
    return bool(finished) and not any("score" in results or "selection" in results for results in finished)


def all_failed(rows: Iterable[Row]) -> list[Job]:
    """The failed jobs of all rows."""
    return [one for row in rows for one in row.failed]


def describe(one: Job) -> str:
    """A job by its overrides."""
    return " ".join(f"{key}={value}" for key, value in one.overrides.items())
