"""The choice of a baseline's one setting by cross-validation inside the training labels."""

import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from graft.baselines.base import Predicted

FOLDS, FEWER_FOLDS, MANY = 5, 3, 500  # folds, and of many labels
CHOOSING = 2000  # labels that choose at most
SMALLEST = 1e-6  # probability that counts

# Predictions of the held-out rows by each candidate, in their order, after learning from the others: indices of both.
Path = Callable[[np.ndarray, np.ndarray], Iterable[Predicted]]


def choose(candidates: Sequence[float], default: float, path: Path, y: np.ndarray, num_classes: int | None) -> float:
    """The candidate with the lowest mean loss on held-out labels; the default where there are too few to hold out."""
    folds = folds_of(y, num_classes)
    losses = [[loss(predicted, y[held], num_classes) for predicted in path(kept, held)] for kept, held in folds]
    return candidates[int(np.argmin(np.mean(losses, axis=0)))] if folds else default


def how_chosen(name: str, value: float, y: np.ndarray, num_classes: int | None) -> str:
    """`C=1 by 5-fold cross-validation in the training labels`."""
    folds = len(folds_of(y, num_classes))
    why = f"by {folds}-fold cross-validation in the training labels" if folds else "fixed: too few labels to hold out"
    return f"{name}={value:g}, {why}"


def folds_of(y: np.ndarray, num_classes: int | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Indices (kept, held out) of each fold, stratified by class; none where most classes have a single label."""
    from sklearn.model_selection import KFold, StratifiedKFold

    chosen = np.sort(np.random.default_rng(0).permutation(len(y))[:CHOOSING])
    y = y[chosen]
    classes = num_classes is not None and y.ndim == 1
    fewest = int(np.median(np.unique(y, return_counts=True)[1])) if classes else len(y)
    number = min(FOLDS if len(y) <= MANY else FEWER_FOLDS, fewest)
    if number < 2:
        return []
    method = StratifiedKFold if classes else KFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer labels is in some folds only
        folds = [*method(number, shuffle=True, random_state=0).split(np.zeros(len(y)), y)]
    return [(chosen[kept], chosen[held]) for kept, held in folds]


def loss(predicted: Predicted, y: np.ndarray, num_classes: int | None) -> float:
    """Mean negative logarithm of the true labels' probabilities, or mean squared error."""
    if num_classes is None:
        return float(np.square(predicted - y).mean())
    predicted = np.clip(predicted, SMALLEST, 1 - SMALLEST)
    if y.ndim == 2:
        return float(-np.where(y > 0.5, np.log(predicted), np.log1p(-predicted)).mean())
    return float(-np.log(predicted[np.arange(len(y)), y]).mean())
