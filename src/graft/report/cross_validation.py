"""What a cross-validation's jobs say together: the choice in each fold, out-of-fold predictions, pooled scores."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graft.report.contributions import contributions
from graft.report.kept import target_predictions
from graft.runs.record import TestSplit, split_of
from graft.runs.roles import REPEATS
from graft.runs.sweeps import Job, Row, mean, number

POOLED = ("acc", "auroc", "mae", "rmse", "r2")  # metrics that predictions alone give


def evaluation_of(rows: Sequence[Row]) -> str | None:
    """The kind of cross-validation that rows are of; None for splits."""
    finished = (results for row in rows for results in row.finished)
    return next((one["evaluation"]["evaluation"] for one in finished if one.get("evaluation")), None)


def chosen_by_fold(rows: Sequence[Row]) -> Row:
    """The jobs that each fold's own validation prefers among several configurations, as one row.

    Equal ones are chosen in the order of their overrides, which no label decides.
    """
    ordered = sorted(rows, key=lambda row: sorted(row.overrides.items()))
    picked: dict[TestSplit, Row] = {}
    for split in dict.fromkeys(split_of(results) for row in ordered for results in row.finished):
        scored = [(value, row) for row in ordered if (value := validation(row, split)) is not None]
        if scored:
            worst_first = scored[0][1].finished[0]["selection"].get("mode") == "min"
            picked[split] = (min if worst_first else max)(scored, key=lambda one: one[0])[1]
    jobs = [job for split, row in picked.items() for job in row.jobs if job.results and split_of(job.results) == split]
    keys = dict.fromkeys(key for row in ordered for key in row.overrides)
    counts = {key: Counter(row.overrides.get(key, "") for row in picked.values()) for key in keys}
    return Row({key: in_folds(found) for key, found in counts.items()}, jobs)


def validation(row: Row, split: TestSplit) -> float | None:
    """What chose the checkpoints of a row's jobs on one split or fold, their mean."""
    return mean(number(one, ("selection", "value")) for one in row.finished if split_of(one) == split)


def in_folds(values: Counter[str]) -> str:
    """A value that all folds have chosen, or how often each was."""
    return next(iter(values)) if len(values) == 1 else ", ".join(f"{v} ({n})" for v, n in values.most_common())


def out_of_fold(row: Row) -> list[list[Job]]:
    """The finished jobs of each repeat and seed of which no fold is missing, in the order of the folds."""
    runs: dict[tuple[Any, Any], dict[int, Job]] = {}
    for job in row.jobs:
        if job.results and (evaluation := job.results.get("evaluation")):
            seeds = job.results["seeds"]
            runs.setdefault((seeds.get("split"), seeds["train"]), {})[evaluation["fold"]] = job
    whole = [jobs for jobs in runs.values() if len(jobs) == next(iter(jobs.values())).results["evaluation"]["folds"]]  # type: ignore[index]
    return [[jobs[fold] for fold in sorted(jobs)] for jobs in whole]


def num_tested(row: Row) -> int | None:
    """How many samples all folds together test; None where a fold is missing."""
    found = out_of_fold(row)
    return sum(job.results["data"]["target"]["test"] for job in found[0] if job.results) if found else None


def pooled(row: Row) -> dict[str, float]:
    """Metrics over the out-of-fold predictions of all folds, means over repeats and seeds; empty without them."""
    found: dict[str, list[float]] = {}
    for jobs in out_of_fold(row):
        if (together := joined([target_predictions(job.path) for job in jobs])) is None:
            return {}
        for metric in POOLED:
            if (values := contributions(metric, together)) is not None:
                found.setdefault(metric, []).append(float(values.mean()))
    return {metric: statistics.fmean(values) for metric, values in found.items()}


def joined(parts: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Predictions of several folds as those of one test split; None where some were not kept or classes differ."""
    kept = [one for one in parts if one is not None]
    if len(kept) < len(parts) or any(one["classes"] != kept[0]["classes"] for one in kept):
        return None
    columns: dict[str, Any] = {
        name: [value for one in kept for value in one[name]] for name in ("sample", "label", "prediction")
    }
    if kept[0]["classes"]:
        columns["probabilities"] = np.concatenate([one["probabilities"] for one in kept])
    return {**columns, "classes": kept[0]["classes"]}


def configuration(row: Row, varied: Sequence[str]) -> str:
    """A row by what it varies."""
    return " ".join(f"{key}={row.overrides[key]}" for key in varied if key not in REPEATS and key in row.overrides)
