"""What a sweep compares: arms (strategies and the like) within a setting, each against training from scratch.

Of a target without labels nothing can be trained from scratch: there the source alone takes its place.

The keys that jobs vary have one of four roles. Repeats (seed, split) are folded; tuned keys (learning rate and other
hyperparameters) are chosen by validation within an arm; settings (data, labels, network) are kept apart; the rest,
such as the strategy, are the arms.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graft.report import cross_validation, looks
from graft.report.kept import target_contributions, target_predictions
from graft.report.names import short_names, whole_name
from graft.report.statistics import (
    Crossed,
    Estimate,
    by_group,
    crossed,
    holm,
    over_seeds,
    over_splits,
    over_units,
)
from graft.report.summary import is_fraction
from graft.runs.defaults import with_defaults
from graft.runs.record import TestSplit, labels_of, split_of, unit_of
from graft.runs.roles import role
from graft.runs.sweeps import Job, Row, fold, read_jobs, split_overrides, test_over_rest

ROUNDING = 1e-3  # of scores in a record against those of the predictions

Pair = tuple[TestSplit, int | None]  # split or fold, and seed of a job
CHOSEN, CHOSEN_TRANSFER = "chosen in each fold", "transfer chosen in each fold"  # arms of evaluation=nested


@dataclass(frozen=True)
class Arm:
    """Rows of a sweep that differ in tuned keys alone, the best by validation first.

    Of nested cross-validation one more arm holds the rows of several, and is what each fold chooses among them.
    """

    name: str  # short, see graft.report.names
    rows: list[Row]
    overrides: str = ""  # what tells it from others, whole

    @functools.cached_property
    def best(self) -> Row:
        """What validation chose: one configuration, or in nested cross-validation one for each fold."""
        nested = cross_validation.evaluation_of(self.rows) == "nested" and len(self.rows) > 1
        return cross_validation.chosen_by_fold(self.rows) if nested else self.rows[0]

    @property
    def from_scratch(self) -> bool:
        """Whether it learns from nothing but the target."""
        return all(map(is_from_scratch, self.best.finished))

    @property
    def is_reference(self) -> bool:
        """Whether others are compared with it: from scratch or, of a target without labels, on the source alone."""
        return self.from_scratch or all(map(is_source_only, self.best.finished))

    @property
    def jobs(self) -> dict[Pair, Job]:
        """Finished jobs of the best row by their split and seed."""
        return {pair_of(job): job for job in self.best.jobs if job.results and "score" in job.results}

    def estimate(self) -> tuple[Estimate, bool]:
        """Its mean test score, and whether the error is over new test samples too (estimand B)."""
        if self.best.overlap:
            return over_units(self.best.units, self.best.overlap), True
        jobs = list(self.jobs.values())
        values = contributions_of(jobs)
        if values is not None and len(values) > 1:
            return crossed(values).estimate, True
        return over_seeds(self.best.scores), False


@dataclass(frozen=True)
class Comparison:
    """An arm against the reference, paired by seed; differences above 0 say that the arm is better."""

    arm: Arm
    reference: Arm
    differences: np.ndarray  # (n,) of seeds, or of splits or folds where those vary
    pairs: int  # of jobs
    unit: str  # seed, split or fold: what the differences are of
    over_seeds: Estimate  # estimand A, or the mean over splits
    crossed: Crossed | None  # estimand B; None without test predictions that can be paired, and with several splits
    splits: int
    p: float | None = None  # Holm's, over the whole family and all looks at it
    family: int = 1  # comparisons that the sweep makes
    look: int = 1  # at these comparisons, see graft.report.looks

    @property
    def estimate(self) -> Estimate:
        """What the claim is decided by: over seeds and test samples where both can be seen."""
        return self.crossed.estimate if self.crossed else self.over_seeds

    @property
    def interval(self) -> tuple[float, float] | None:
        """Simultaneous over the family and the looks at it; None at too few seeds or without any spread."""
        if not self.estimate.has_interval:
            return None
        return self.estimate.interval(1 - looks.level(self.look), self.family)

    @property
    def verdict(self) -> str:
        """helps, hurts, or unclear where the interval holds 0 or where there is none."""
        if self.interval is None:
            return "unclear"
        low, high = self.interval
        return "helps" if low > 0 else "hurts" if high < 0 else "unclear"


@dataclass(frozen=True)
class Setting:
    """The arms on one data set, label budget and network, the best by validation first."""

    name: str  # empty where there is only one
    arms: list[Arm]
    comparisons: list[Comparison]

    @property
    def reference(self) -> Arm | None:
        """What the others are compared with, the best by validation: from scratch, or on the source alone."""
        return next((arm for arm in self.arms if arm.is_reference), None)

    @functools.cached_property
    def reference_name(self) -> str:
        """What strategies are compared with, as text."""
        finished = [results for arm in self.arms for row in arm.rows for results in row.finished if "score" in results]
        return "source only" if finished and all(map(is_unlabelled, finished)) else "scratch"

    @functools.cached_property
    def procedure(self) -> Arm | None:
        """What nested cross-validation scores: each fold's choice among all configurations; None of other kinds."""
        rows = list({id(row): row for arm in self.arms for row in arm.rows}.values())
        return Arm(CHOSEN, rows) if cross_validation.evaluation_of(rows) == "nested" and len(rows) > 1 else None

    @property
    def transfers(self) -> list[Arm]:
        """The others."""
        return [arm for arm in self.arms if not arm.is_reference]


@dataclass(frozen=True)
class Study:
    """A sweep's folder, or several that are read as one."""

    folders: list[Path]
    jobs: list[Job]
    rows: list[Row]  # seeds and splits folded, best first by validation
    settings: list[Setting]
    varied: list[str]
    same: dict[str, str]

    @property
    def finished(self) -> list[Mapping[str, Any]]:
        """Results of all jobs that have a score."""
        return [results for row in self.rows for results in row.finished if "score" in results]

    @property
    def metric(self) -> str:
        """The main metric's name without stage and domain, such as acc."""
        return str(self.finished[0]["score"]["metric"]).rsplit("/", 1)[-1]

    @property
    def higher_is_better(self) -> bool:
        """Whether it grows with quality."""
        return bool(self.finished[0]["score"]["higher_is_better"])

    @property
    def in_points(self) -> bool:
        """Whether the metric is a fraction, whose differences are percentage points."""
        return is_fraction(self.finished[0])

    @property
    def comparisons(self) -> list[Comparison]:
        """Of all settings."""
        return [one for setting in self.settings for one in setting.comparisons]


def read(folders: Sequence[Path]) -> Study:
    """The study of some sweeps' folders."""
    return of_jobs(folders, [job for folder in folders for job in read_jobs(folder)])


def of_jobs(folders: Sequence[Path], found: Sequence[Job]) -> Study:
    """The study of the jobs in some folders; of those with the same overrides the last one counts."""
    jobs = list({tuple(sorted(job.overrides.items())): job for job in with_defaults(found)}.values())
    rows = fold(jobs)
    varied, same = split_overrides(jobs) if jobs else ([], {})
    settings = settings_of(rows, varied)
    look = looks.number(folders, repeats_of(settings))
    return Study(list(folders), jobs, rows, as_family(settings, look), varied, same)


def repeats_of(settings: Sequence[Setting]) -> set[Pair]:
    """Splits and seeds that finished, by which one look is told from the next."""
    return {pair for setting in settings for arm in setting.arms for pair in arm.jobs}


def settings_of(rows: Sequence[Row], varied: Sequence[str]) -> list[Setting]:
    """Scored rows by setting and arm, in their order, with the comparisons of each setting."""
    grouped: dict[str, dict[str, list[Row]]] = {}
    setting_keys, arm_keys = ([key for key in varied if role(key) == what] for what in ("setting", "arm"))
    places, arms = short_names(rows, setting_keys), short_names(rows, arm_keys)
    for row in rows:
        if row.scores:
            place, arm = whole_name(row.overrides, setting_keys), whole_name(row.overrides, arm_keys)
            grouped.setdefault(place, {}).setdefault(arm, []).append(row)
    settings = []
    for place, members in grouped.items():
        found = [Arm(arms[whole] or "this configuration", rows, whole) for whole, rows in members.items()]
        setting = Setting(places[place], with_choice(found), [])
        if setting.reference:
            compared = (compare(arm, setting.reference) for arm in setting.transfers)
            setting.comparisons.extend(one for one in compared if one)
        settings.append(setting)
    return settings


def with_choice(arms: list[Arm]) -> list[Arm]:
    """The arms, and of nested cross-validation first what each fold chooses among those that transfer."""
    transfers = [arm for arm in arms if not arm.is_reference]
    rows = [row for arm in transfers for row in arm.rows]
    nested = cross_validation.evaluation_of(rows) == "nested" and len(transfers) > 1
    return [Arm(CHOSEN_TRANSFER, rows), *arms] if nested else arms


def as_family(settings: Sequence[Setting], look: int = 1) -> list[Setting]:
    """The same settings with p-values and intervals that hold for all of their comparisons and looks together."""
    family = [one for setting in settings for one in setting.comparisons]
    decided = [one for one in family if one.estimate.has_interval]
    harder = looks.level(1) / looks.level(look)
    p_values = [min(harder * one.estimate.p, 1.0) for one in decided]
    adjusted = dict(zip(map(id, decided), holm(p_values), strict=True))

    def joined(one: Comparison) -> Comparison:
        return Comparison(**{**vars(one), "p": adjusted.get(id(one)), "family": max(len(family), 1), "look": look})

    return [Setting(one.name, one.arms, [joined(other) for other in one.comparisons]) for one in settings]


def compare(arm: Arm, reference: Arm) -> Comparison | None:
    """An arm's best row against another's, over the splits and seeds that both have; None without any."""
    mine, other = arm.jobs, reference.jobs
    pairs = [pair for pair in mine if pair in other]
    if not pairs:
        return None
    sign = 1.0 if mine[pairs[0]].results["score"]["higher_is_better"] else -1.0  # type: ignore[index]
    by_pair = {pair: sign * (score_of(mine[pair]) - score_of(other[pair])) for pair in pairs}
    splits = list(dict.fromkeys(split for split, _ in pairs))
    results = [mine[pair].results or {} for pair in pairs]
    unit = unit_of(results, len(splits))
    if len(splits) > 1:  # the split is the unit, seeds are averaged within it
        means = np.array([np.mean([by_pair[pair] for pair in pairs if pair[0] == split]) for split in splits])
        estimate = over_splits(means, float(np.mean([*map(test_over_rest, results)])))
        return Comparison(arm, reference, means, len(pairs), unit, estimate, None, len(splits))
    differences = np.array(list(by_pair.values()))
    paired = None
    if len(pairs) > 1:
        values = [contributions_of([jobs[pair] for pair in pairs]) for jobs in (mine, other)]
        same = [samples_of(jobs[pairs[0]]) for jobs in (mine, other)]
        if values[0] is not None and values[1] is not None and same[0] == same[1]:
            paired = crossed(sign * (values[0] - values[1]))
    return Comparison(arm, reference, differences, len(pairs), unit, over_seeds(differences), paired, 1)


def contributions_of(jobs: Sequence[Job]) -> np.ndarray | None:
    """What each test sample adds to the jobs' scores, `(jobs, m)`; None where not all have the same samples.

    Of samples in groups what each group adds; None where all are one group.
    """
    if not jobs or any(samples_of(job) is None or samples_of(job) != samples_of(jobs[0]) for job in jobs):
        return None
    rows = []
    for job in jobs:
        row = target_contributions(job.path, metric_of(job))
        if row is None or abs(row.mean() - score_of(job)) > ROUNDING * max(1.0, abs(score_of(job))):
            return None  # the metric is another one than its name says
        rows.append(row)
    groups = (target_predictions(jobs[0].path) or {}).get("group")
    if groups is None:
        return np.stack(rows)
    grouped = by_group(np.stack(rows), np.array(groups))
    return grouped if grouped.shape[1] > 1 else None


def samples_of(job: Job) -> tuple[Any, ...] | None:
    """Places and labels of the target's test samples, by which runs are paired; None without predictions."""
    found = target_predictions(job.path)
    return None if found is None else (found["index"], found["label"])


def is_from_scratch(results: Mapping[str, Any]) -> bool:
    """Whether a run began with random numbers and saw no source."""
    source = results.get("data", {}).get("source") or {}
    if "weights" not in results:  # of an older Graft
        return any(line.lstrip("+") == "strategy=scratch" for line in results.get("overrides", []))
    return results["weights"] is None and not source.get("trained_on", False)


def is_source_only(results: Mapping[str, Any]) -> bool:
    """Whether a run of a target without labels learned the source's alone: no term looked at the target."""
    return is_unlabelled(results) and not results["terms"]


def is_unlabelled(results: Mapping[str, Any]) -> bool:
    """Whether no label of the target trained a run."""
    return "terms" in results and labels_of(results)[0] == 0


def pair_of(job: Job) -> Pair:
    """Split or fold, and seed."""
    results = job.results or {}
    return split_of(results), results.get("seeds", {}).get("train")


def score_of(job: Job) -> float:
    """The test score of a finished job."""
    assert job.results is not None
    return float(job.results["score"]["value"])


def metric_of(job: Job) -> str:
    """The score's metric without stage and domain."""
    assert job.results is not None
    return str(job.results["score"]["metric"]).rsplit("/", 1)[-1]
