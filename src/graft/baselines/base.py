"""What every baseline is: fitted on rows and labels, then asked for what a network's task predicts."""

from typing import Any, Protocol

import numpy as np

Rows = Any  # (N, D): a numpy array, or a scipy matrix of few values that are not 0, as of words
Predicted = np.ndarray  # (N, K) probabilities of classes or of labels, (N,) numbers


class Model(Protocol):
    """One method. Labels `y` are int64 `(N,)` classes, float `(N,)` numbers, or float `(N, K)` of 0 and 1."""

    def fit(self, x: Rows, y: np.ndarray, num_classes: int | None) -> str:
        """Learn from rows; returns what was chosen on the way, and how. `num_classes` is None for numbers."""

    def predict(self, x: Rows) -> Predicted:
        """What the rows `(N, D)` are, in the order of the classes."""


def one_hot(y: np.ndarray, num_classes: int | None) -> np.ndarray:
    """Labels as what their mean predicts: `(N, K)` of 0 and 1, or the numbers `(N,)` themselves."""
    return y.astype(float) if num_classes is None or y.ndim == 2 else np.eye(num_classes)[y]
