"""Baselines as a report reads them: means over the runs that scored them, in the order of validation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graft.runs.record import split_of
from graft.runs.roles import REPEATS, WEIGHTS, role
from graft.runs.sweeps import Row, mean

MAJORITY = "majority"  # the one that looks at no sample


@dataclass(frozen=True)
class Baseline:
    """One baseline's scores by the run's main metric: means over seeds."""

    key: str
    title: str
    fitted_on: str
    val: float | None
    test: float
    seeds: int
    seconds: float

    def reaches(self, score: float, higher_is_better: bool) -> bool:
        """Whether its test score is at least a run's."""
        return self.test >= score if higher_is_better else self.test <= score

    @property
    def saw_target_alone(self) -> bool:
        """Whether neither source data nor pretrained features are behind it."""
        return not any(
            word in self.key for word in ("features", "source_only", "pooled", "aligned", "shift", "weighted")
        )

    @property
    def sentence_start(self) -> str:
        """Its title at the beginning of a sentence."""
        return self.title[0].upper() + self.title[1:]


def baselines_in(finished: Sequence[Mapping[str, Any]]) -> list[Baseline]:
    """Those of some runs on the same data, the best by validation first, and last the one that looks at nothing.

    Runs of one seed and split have the same ones: the first that has one counts.
    """
    scored = [results for results in finished if results.get("score") and results.get("baselines")]
    by_key: dict[str, dict[Any, Mapping[str, Any]]] = {}
    for results in scored:
        seed = (results.get("seeds") or {}).get("train")
        for key, entry in results["baselines"].items():
            by_key.setdefault(key, {}).setdefault((seed, split_of(results)), entry)
    found = [one for key, entries in by_key.items() if (one := averaged(key, [*entries.values()], scored[0]["score"]))]
    sign = -1 if scored and scored[0]["score"]["higher_is_better"] else 1
    return sorted(found, key=lambda one: (one.key == MAJORITY, one.val is None, sign * (one.val or 0)))


def averaged(key: str, entries: Sequence[Mapping[str, Any]], score: Mapping[str, Any]) -> Baseline | None:
    """Means of what `results.json` holds of a baseline in several runs; None where its score is no number."""
    metric = score["metric"]
    test = mean(entry["metrics"].get(metric) for entry in entries)
    val = mean(entry["metrics"].get(metric.replace("test/", "val/", 1)) for entry in entries)
    if test is None:
        return None
    seconds = mean(entry.get("seconds") for entry in entries) or 0.0
    return Baseline(key, entries[0]["title"], entries[0]["fitted_on"], val, test, len(entries), seconds)


def does_as_well(
    finished: Sequence[Mapping[str, Any]], name: str, score: float | None, shown: Callable[[float], str]
) -> str:
    """A sentence where the baseline that validation prefers reads at least a run's test score; empty where not."""
    found = baselines_in(finished)
    if not found or score is None or not found[0].reaches(score, finished[0]["score"]["higher_is_better"]):
        return ""
    best = found[0]
    return f"{best.sentence_start} ({best.fitted_on}) does as well: {shown(best.test)}, {name} {shown(score)}."


def table(rows: Sequence[Row], varied: Sequence[str]) -> list[list[str]]:
    """A header, and a line for each baseline in each setting of a sweep; the header alone without any."""
    keys = [key for key in varied if key not in REPEATS and (role(key) == "setting" or key == WEIGHTS)]
    settings: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        place = tuple(row.overrides.get(key, "") for key in keys)
        settings.setdefault(place, []).extend(row.finished)
    lines = [
        [*place, one.title, one.fitted_on, cell(one.val), cell(one.test), str(one.seeds), f"{one.seconds:.1f} s"]
        for place, finished in settings.items()
        for one in baselines_in(finished)
    ]
    scored = [results for finished in settings.values() for results in finished if results.get("score")]
    metric = scored[0]["score"]["metric"].rsplit("/", 1)[-1] if scored else ""
    return [[*keys, "baseline", "fitted on", f"validation {metric}", f"test {metric}", "jobs", "time"], *lines]


def cell(value: float | None) -> str:
    """A score as text."""
    return "" if value is None else f"{value:.4f}"
