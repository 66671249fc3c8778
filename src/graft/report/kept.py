"""Test predictions that runs kept, as reports read them."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graft.model import predictions
from graft.report.contributions import contributions
from graft.report.statistics import bootstrap, by_group, wilson
from graft.runs.folder import PREDICTIONS


def target_contributions(folder: Path, metric: str) -> np.ndarray | None:
    """What each test sample of the target adds to a run's metric `(m,)`; None without predictions that allow it."""
    file = folder / PREDICTIONS
    return contributions_in(file, file.stat().st_mtime_ns, metric) if file.is_file() else None


@functools.lru_cache(maxsize=256)
def contributions_in(file: Path, changed: int, metric: str) -> np.ndarray | None:
    """Those of a file as it was written last: every pair of strategies asks for them."""
    found = predictions_in(file, changed)
    return contributions(metric, found) if found else None


def target_predictions(folder: Path) -> dict[str, Any] | None:
    """A run's predictions of the target's test split, None where they were not kept."""
    file = folder / PREDICTIONS
    return predictions_in(file, file.stat().st_mtime_ns) if file.is_file() else None


def sampling_interval(metric: str, found: Mapping[str, Any]) -> tuple[float, float] | None:
    """The 95 % interval of a test metric over samples, or over groups of them; None for one that allows none."""
    values = contributions(metric, found)
    if values is None:
        return None
    if (groups := found.get("group")) is not None:
        return bootstrap(by_group(values, np.array(groups)))
    return wilson(float(values.sum()), len(values)) if metric == "acc" else bootstrap(values)


@functools.lru_cache(maxsize=256)
def predictions_in(file: Path, changed: int) -> dict[str, Any] | None:
    """What a file says of the target as it was written last; probabilities as an array `(m, K)`."""
    try:
        found = predictions.read(file).get("target")
    except (OSError, ValueError, KeyError, TypeError):  # cut short, or not as Graft writes it: as if not kept
        return None
    if found and "probabilities" in found and found["classes"]:
        found["probabilities"] = np.array(found["probabilities"], dtype=np.float32)
    return found
