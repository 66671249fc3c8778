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


def choose(
    candidates: Sequence[float],
    default: float,
    path: Path,
    y: np.ndarray,
    num_classes: int | None,
    weights: np.ndarray | None = None,
) -> float:
    """The candidate with the lowest mean loss on held-out labels; the default where there are too few to hold out.

    `weights` `(N,)` are those of the labels in that mean; None: equal ones.
    """
    folds = folds_of(y, num_classes)

    def mean(predicted: Predicted, held: np.ndarray) -> float:
        return float(np.average(losses_of(predicted, y[held], num_classes), weights=at(weights, held)))

    losses = [[mean(predicted, held) for predicted in path(kept, held)] for kept, held in folds]
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


def at(weights: np.ndarray | None, indices: np.ndarray) -> np.ndarray | None:
    """The weights of some rows, where there are any."""
    return None if weights is None else weights[indices]


def losses_of(predicted: Predicted, y: np.ndarray, num_classes: int | None) -> np.ndarray:
    """Negative logarithms of the true labels' probabilities, or squared errors, `(N,)`."""
    if num_classes is None:
        return np.square(predicted - y)
    predicted = np.clip(predicted, SMALLEST, 1 - SMALLEST)
    if y.ndim == 2:
        return -np.where(y > 0.5, np.log(predicted), np.log1p(-predicted)).mean(axis=1)
    return -np.log(predicted[np.arange(len(y)), y])
