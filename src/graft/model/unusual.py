"""Inputs unlike those that a network was trained for: scores with thresholds from the validation split."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from torch import Tensor

ACCEPTED = 0.95  # share of validation samples that are not unusual
SCORES = ("distance", "energy")  # the first one that there is decides


def thresholds(scores: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """By name the value of a score `(N,)` that ACCEPTED of the samples do not exceed; None without a finite score."""
    finite = {name: values for name, values in scores.items() if bool(values.isfinite().all())}
    if not finite:
        return None
    found = {name: float(np.quantile(one.numpy(), ACCEPTED, method="higher")) for name, one in finite.items()}
    return {"accepted": ACCEPTED, "samples": len(next(iter(finite.values()))), "thresholds": found}


def is_unusual(scores: Mapping[str, np.ndarray], limits: Mapping[str, float]) -> np.ndarray | None:
    """Whether each sample `(N,)` exceeds the threshold of the score that decides; None where there is none."""
    name = deciding(scores, limits)
    return None if name is None else scores[name] > limits[name]


def deciding(scores: Collection[str], limits: Collection[str]) -> str | None:
    """The score that decides, of those that there are and have a threshold; None without one."""
    return next((name for name in SCORES if name in scores and name in limits), None)
