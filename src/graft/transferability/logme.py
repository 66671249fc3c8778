"""LogME: the log evidence of a Bayesian linear model of the labels (You et al., ICML 2021)."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from scipy.optimize import minimize_scalar

from graft.transferability.base import Evidence, Kind, Measure, directions

DECADES = np.linspace(-12, 6, 73)  # of noise over prior variance, in units of the largest squared singular value


class LogME(Measure):
    """Maximised over prior and noise, per sample, mean over one-vs-rest classes."""

    name, title = "logme", "LogME"
    paper = "You et al., LogME: Practical Assessment of Pre-trained Models for Transfer Learning, ICML 2021"
    means = "how probable the labels are under a linear model of the features, averaged over all its weights"
    not_for = (
        "it is about linear models: full fine-tuning may order backbones otherwise; values of other data do not compare"
    )
    kinds: ClassVar[Sequence[Kind]] = ("classes", "labels", "numbers")

    def value(self, evidence: Evidence) -> float:
        """Mean over the columns of labels."""
        left, singular = directions(evidence.features)
        columns = evidence.columns
        explained = np.square(left.T @ columns)  # (R, K)
        rest = np.square(columns).sum(0) - explained.sum(0)
        found = [
            log_evidence(singular**2, x, max(r, 0.0), len(columns)) for x, r in zip(explained.T, rest, strict=True)
        ]
        return float(np.mean(found))


def log_evidence(eigenvalues: np.ndarray, explained: np.ndarray, rest: float, samples: int) -> float:
    """Per sample, of one column of labels, at the best prior and noise.

    `explained` `(R,)` are its squared coordinates along the left singular vectors, `rest` what they leave. For each
    ratio of noise to prior variance the best noise is known, so that one number is left to look for.
    """
    if explained.sum() + rest == 0:
        return 0.0  # labels that are all 0 are certain in any model
    unit = eigenvalues.max(initial=1e-300)

    def negative(decade: float) -> float:
        ratio = unit * 10.0**decade
        error = (explained * ratio / (ratio + eigenvalues)).sum() + rest
        noise = max(error / samples, 1e-300)
        return 0.5 * (np.log1p(eigenvalues / ratio).sum() + samples * (np.log(2 * np.pi * noise) + 1)) / samples

    place = int(np.argmin([negative(decade) for decade in DECADES]))
    low, high = DECADES[max(place - 1, 0)], DECADES[min(place + 1, len(DECADES) - 1)]
    return -float(minimize_scalar(negative, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).fun)
