"""Covariate shift: source rows count by how much likelier they are in the target."""

import numpy as np

from graft.baselines.base import Predicted
from graft.baselines.linear import Linear

LARGEST = 10.0  # density ratio; larger ones are clipped, because a few rows would decide alone


class ImportanceWeighted:
    """A linear model on the source's labels with density ratios as weights, from a logistic domain classifier."""

    def __init__(self, target: np.ndarray) -> None:
        """`target` are the target's training rows `(M, D)`."""
        self._target = target

    def fit(self, x: np.ndarray, y: np.ndarray, num_classes: int | None) -> str:
        """Tell the domains apart, then fit on weighted source rows."""
        ratio = np.minimum(density_ratio(x, self._target), LARGEST)
        self._linear = Linear()
        chosen = self._linear.fit(x, y, num_classes, weights=ratio / ratio.mean())
        effective = ratio.sum() ** 2 / np.square(ratio).sum()
        clipped = int((ratio >= LARGEST).sum())
        return f"{chosen}; weights clipped at {LARGEST:g} in {clipped:,} rows, effective rows {effective:,.0f}"

    def predict(self, x: np.ndarray) -> Predicted:
        """What rows `(N, D)` are."""
        return self._linear.predict(x)


def density_ratio(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Target over source density `(N,)` at the source's rows, by a logistic domain classifier."""
    domain = np.repeat([0, 1], [len(source), len(target)])
    classifier = Linear()
    classifier.fit(np.concatenate([source, target]), domain, 2)
    of_source, of_target = classifier.predict(source).T
    return of_target / np.maximum(of_source, np.finfo(float).tiny) * (len(source) / len(target))
