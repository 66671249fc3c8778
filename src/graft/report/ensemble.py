"""The mean of what several jobs of a seed predict, as a row of the sweep: of all, or of those that folds leave."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graft.report.contributions import contributions
from graft.report.kept import target_predictions
from graft.runs.recipe import not_clearly_worse
from graft.runs.record import split_of
from graft.runs.roles import role
from graft.runs.sweeps import Job, Row, all_chose_by, by_setting, split_overrides

RULE = "ensemble"
SAME = ("name", "data", "labels", "evaluation", "seeds", "weights")  # that the averaged jobs have in common
Found = Mapping[str, Any]  # of a domain, as predictions.read gives them


def ensembles(jobs: Sequence[Job], rows: Sequence[Row]) -> list[Row]:
    """A row for each setting (data, network) whose jobs kept their predictions, which are averaged seed by seed.

    All jobs of a setting under `selection=ensemble`; under `selection=budget` those of the configurations that the
    folds do not find clearly worse than the best one. Empty under another rule.
    """
    all_of_them = all_chose_by(rows, RULE)
    if not all_of_them and not all_chose_by(rows, "budget"):
        return []
    varied = split_overrides(jobs)[0]
    found = []
    for members in by_setting(rows):
        averaged = members if all_of_them else not_clearly_worse(members)
        kept = [job for row in averaged for job in row.jobs if job.results]
        if kept and (mean := ensemble_of(kept, varied)):
            found.append(mean)
    return found


def ensemble_of(jobs: Sequence[Job], varied: Sequence[str]) -> Row | None:
    """The row of one setting's jobs; None where there is one job a seed, or nothing to average."""
    by_seed: dict[tuple[Any, Any], list[Job]] = {}
    for job in jobs:
        assert job.results is not None
        by_seed.setdefault((split_of(job.results), job.results["seeds"]["train"]), []).append(job)
    sizes = sorted({len(members) for members in by_seed.values()})
    averaged = [results for members in by_seed.values() if (results := averaged_results(members))]
    if sizes[-1] == 1 or not averaged:
        return None
    name = f"{RULE} of {' to '.join(map(str, dict.fromkeys((sizes[0], sizes[-1]))))}"
    keys = [key for key in varied if role(key) != "setting"]
    same = {key: jobs[0].overrides[key] for key in varied if role(key) == "setting" and key in jobs[0].overrides}
    overrides = {key: name if key == keys[0] else "" for key in keys} | same
    return Row(overrides, [Job("", overrides, results) for results in averaged])


def averaged_results(jobs: Sequence[Job]) -> dict[str, Any] | None:
    """A record of the mean prediction of some jobs, whose costs add up; None where it cannot be scored."""
    results = [job.results for job in jobs if job.results]
    found = [target for job in jobs if (target := target_predictions(job.path))]
    score = results[0]["score"]
    if len(found) < len(jobs) or any(one["index"] != found[0]["index"] for one in found):
        return None
    values = contributions(score["metric"].rsplit("/", 1)[-1], mean_prediction(found))
    if values is None:
        return None
    value = float(values.mean())
    return {
        **{key: results[0][key] for key in SAME if key in results[0]},
        "selection": {"rule": RULE, "monitor": None, "value": None},
        "score": {**score, "value": value},
        "metrics": {score["metric"]: value},
        "parameters": {key: sum(one["parameters"][key] for one in results) for key in ("total", "trainable")},
        "time": {key: sum(one["time"][key] or 0.0 for one in results) for key in ("fit_s", "total_s")},
    }


def mean_prediction(found: Sequence[Found]) -> dict[str, Any]:
    """Predictions of the mean of probabilities, or of the mean number, of the same samples."""
    first = dict(found[0])
    if not first["classes"]:
        return first | {"prediction": np.mean([one["prediction"] for one in found], axis=0).tolist()}
    classes = first["classes"]
    probabilities = np.mean([one["probabilities"] for one in found], axis=0, dtype=float)
    if isinstance(first["label"][0], list):
        decided: list[Any] = [[name for name, p in zip(classes, row, strict=True) if p > 0.5] for row in probabilities]
    else:
        decided = [classes[place] for place in probabilities.argmax(axis=1)]
    return first | {"prediction": decided, "probabilities": probabilities}
