"""What each test sample adds to a metric, so that the mean of the contributions is the metric.

Their spread over samples is the metric's sampling error: exact for means such as accuracy, DeLong's for AUROC, and
linearised (the influence function) for R2 and RMSE.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def contributions(metric: str, predictions: Mapping[str, Any]) -> np.ndarray | None:
    """Contributions `(m,)` of a run's test predictions, as `model.predictions.read` gives them of a domain.

    None for a metric that is no smooth function of means over samples, such as F1, or labels it does not suit.
    """
    classes = predictions.get("classes")
    labels, predicted = predictions["label"], predictions["prediction"]
    if metric == "acc" and classes:
        return np.array([label == prediction for label, prediction in zip(labels, predicted, strict=True)], dtype=float)
    if metric == "auroc" and classes and not isinstance(labels[0], list):
        return of_auroc(np.array(predictions["probabilities"], dtype=float), labels, classes)
    if metric in OF_NUMBERS and classes is None:
        true, found = np.array(labels, dtype=float), np.array(predicted, dtype=float)
        return OF_NUMBERS[metric](true, found) if true.ndim == 1 else None
    return None


def of_auroc(probabilities: np.ndarray, labels: Sequence[str], classes: Sequence[str]) -> np.ndarray | None:
    """Of the AUROC of two classes, or of the mean of each class against the rest; None where a class is absent."""
    names = np.array([str(label) for label in labels])
    positives = [str(name) for name in (classes[1:] if len(classes) == 2 else classes)]
    found = []
    for name, scores in zip(positives, probabilities.T[-len(positives) :], strict=True):
        positive = names == name
        if not positive.any() or positive.all():
            return None
        found.append(placements(scores, positive))
    return np.mean(found, axis=0)


def placements(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Contributions `(m,)` to the AUROC from placement values (DeLong et al., 1988), scaled to have it as their mean.

    A sample's placement value is the fraction of the other class that it stands on the right side of, ties one half.
    """
    m, n_positive = len(scores), int(positive.sum())
    n_negative = m - n_positive
    below = np.where(positive, passed(scores, scores[~positive]), passed(scores, scores[positive]))
    values = np.where(positive, below / n_negative, 1 - below / n_positive)
    area = values[positive].mean()
    return area + np.where(positive, m / n_positive, m / n_negative) * (values - area)


def passed(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many of `others` each score is above, ties one half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / 2


def delong(scores: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """AUROC and its variance by DeLong."""
    values = placements(scores, positive)
    m, area = len(scores), float(values.mean())
    parts = [(values[group] - area) * group.sum() / m for group in (positive, ~positive)]
    return area, float(sum(part.var(ddof=1) / len(part) for part in parts))


def _mae(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    return np.abs(true - found)


def _mse(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    return (true - found) ** 2


def _rmse(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    squares = (true - found) ** 2
    root = np.sqrt(squares.mean())
    return root + (squares - squares.mean()) / (2 * root) if root else squares


def _r2(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    squares, spread = (true - found) ** 2, (true - true.mean()) ** 2
    share = squares.mean() / spread.mean()
    return 1 - share - (squares - squares.mean()) / spread.mean() + share * (spread - spread.mean()) / spread.mean()


OF_NUMBERS = {"mae": _mae, "mse": _mse, "rmse": _rmse, "r2": _r2}
