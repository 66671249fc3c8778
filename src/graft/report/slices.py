"""A run's test score by class and by slice, each with the sampling error of its few samples."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from graft.config.types import Auto
from graft.model.predictions import SLICE
from graft.report.contributions import contributions
from graft.report.export import Table
from graft.report.statistics import bootstrap, wilson

CLASS = "class"
PARTS = 4  # that numbers with more different values are divided into
SMALL = 30  # samples, below which a slice is named as small
NAMED = 5
MISSING = "missing"
FRACTIONS = ("acc", "auroc")


class ReportSettings(TypedDict):
    """The keys of `report`."""

    slices: Sequence[str]
    proxy_a_distance: Auto | bool


def scores_by_slice(found: Mapping[str, Any], metric: str) -> Table | None:
    """Number of test samples, score and 95 % interval of each class and slice; None where there are none.

    `found` are a run's test predictions. A metric that is no mean over samples gives way to the accuracy.
    """
    metric = metric if contributions(metric, found) is not None else "acc"
    rows, sizes = [], {}
    for name, values in sliced_by(found):
        for value, chosen in groups_of(values):
            sizes[f"{name}={value}"] = len(chosen)
            rows.append([name, value, f"{len(chosen):,}", *score_cells(rows_of(found, chosen), metric)])
    if not rows:
        return None
    small = sorted((name for name in sizes if sizes[name] < SMALL), key=sizes.__getitem__)
    named = ", ".join(f"{name} ({sizes[name]})" for name in small[:NAMED])
    more = f" and {len(small) - NAMED} more" if len(small) > NAMED else ""
    interval = "Wilson's interval" if metric == "acc" else "a bootstrap over the slice's samples"
    caption = f"The 95 % interval is {interval}: sampling error alone, and unadjusted for the number of slices."
    caption += f" Fewer than {SMALL} samples: {named}{more}." if small else ""
    return Table("slices", "By slice", caption, ["by", "value", "samples", metric, "95 % interval"], rows, numbers=2)


def sliced_by(found: Mapping[str, Any]) -> list[tuple[str, Sequence[Any]]]:
    """Names with a value for each sample: the class, where there is one a sample, and what the run kept."""
    single = found["classes"] is not None and not isinstance(found["label"][0], list)
    kept = [(key.removeprefix(SLICE), values) for key, values in found.items() if key.startswith(SLICE)]
    return [*([(CLASS, found["label"])] if single else []), *kept]


def groups_of(values: Sequence[Any]) -> list[tuple[str, np.ndarray]]:
    """Slices in order with the indices `(m,)` of their samples; many different numbers are divided at quartiles."""
    missing = np.array([value is None for value in values])
    known = np.flatnonzero(~missing).tolist()
    numbers = all(isinstance(values[index], int | float) for index in known)
    if numbers and len({values[index] for index in known}) > 2 * PARTS:
        groups = quartiles(np.array([values[index] for index in known], dtype=float), np.array(known))
    else:
        words = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
        order = sorted({values[index] for index in known}, key=lambda value: value if numbers else str(value))
        names = [f"{value:g}" if isinstance(value, float) else str(value) for value in order]
        groups = [(name, np.array([index for index in known if words[index] == name])) for name in names]
    return [*groups, *([(MISSING, np.flatnonzero(missing))] if missing.any() else [])]


def quartiles(numbers: np.ndarray, indices: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Numbers `(m,)` in four parts of about equally many, named by their ends; equal ones stay together."""
    edges = np.quantile(numbers, [part / PARTS for part in range(1, PARTS)])
    places = np.searchsorted(edges, numbers, "left")
    found = [(numbers[places == part], indices[places == part]) for part in range(PARTS)]
    return [(f"{part.min():.4g} to {part.max():.4g}", chosen) for part, chosen in found if len(chosen)]


def rows_of(found: Mapping[str, Any], chosen: np.ndarray) -> dict[str, Any]:
    """Some samples' labels and predictions."""
    columns = {key: [found[key][index] for index in chosen] for key in ("label", "prediction")}
    if found["classes"] is not None:
        columns["probabilities"] = np.asarray(found["probabilities"])[chosen]
    return {**columns, "classes": found["classes"]}


def score_cells(found: Mapping[str, Any], metric: str) -> list[str]:
    """Score and interval; empty where the metric is not defined, as the AUROC of one class."""
    values = contributions(metric, found)
    if values is None or not np.isfinite(values).all():
        return ["", ""]
    low, high = wilson(float(values.sum()), len(values)) if metric == "acc" else bootstrap(values)
    digits = ".3f" if metric in FRACTIONS else ".4g"
    several = metric == "acc" or len(values) > 1
    return [f"{values.mean():{digits}}", f"{low:{digits}} to {high:{digits}}" if several else ""]
