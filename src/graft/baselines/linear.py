"""Logistic regression, one for each label of several, and ridge regression for numbers."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from graft.baselines.base import Predicted, Rows
from graft.baselines.folds import at, choose, folds_of, how_chosen

STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)  # C of scikit-learn, of rows whose mean squared norm is 1
DEFAULT = 10.0  # where no label can be held out
ITERATIONS, TOLERANCE = 200, 1e-3


class Linear:
    """scikit-learn's LogisticRegression or Ridge with an L2 penalty chosen by cross-validation.

    Rows are centred, unless they are sparse, and scaled by one number, so that one range of penalties suits all.
    """

    def fit(self, x: Rows, y: np.ndarray, num_classes: int | None, weights: np.ndarray | None = None) -> str:
        """Choose the penalty, then fit on all rows; `weights` `(N,)` of mean 1 are theirs in every loss."""
        self._measure(x)
        rows, self._several = self._turned(x), y.ndim == 2

        def path(kept: np.ndarray, held: np.ndarray) -> Iterator[Predicted]:
            for models in fits(rows[kept], y[kept], STRENGTHS, num_classes, at(weights, kept)):
                yield predicted_by(models, rows[held], num_classes, self._several)

        self._strength = choose(STRENGTHS, DEFAULT, path, y, num_classes, weights)
        self._num_classes = num_classes
        self._models = next(fits(rows, y, [self._strength], num_classes, weights))
        return how_chosen("C", self._strength, y, num_classes)

    def predict(self, x: Rows) -> Predicted:
        """Probabilities or numbers."""
        return predicted_by(self._models, self._turned(x), self._num_classes, self._several)

    def held_out(self, x: Rows, y: np.ndarray, num_classes: int | None) -> tuple[Predicted, np.ndarray]:
        """Predictions of training rows by fits on the other folds at the chosen penalty, and the rows' indices.

        Where there are too few labels to hold out, those of all rows by the fit on all.
        """
        rows, folds = self._turned(x), folds_of(y, num_classes)
        if not folds:
            return self.predict(x), np.arange(len(y))
        models = [next(fits(rows[kept], y[kept], [self._strength], num_classes)) for kept, _ in folds]
        held = [indices for _, indices in folds]
        predicted = [predicted_by(m, rows[h], num_classes, self._several) for m, h in zip(models, held, strict=True)]
        return np.concatenate(predicted), np.concatenate(held)

    def _measure(self, x: Rows) -> None:
        """Mean, scale, and the directions in which training rows differ: exact, and faster where they are fewer."""
        self._directions = None
        if is_sparse(x):
            self._mean, squares = 0.0, x.multiply(x).sum()
        else:
            self._mean = x.mean(axis=0)
            centred = x - self._mean
            squares = np.square(centred).sum()
            if x.shape[0] < x.shape[1]:
                self._directions = np.linalg.svd(centred, full_matrices=False)[2].T
        self._scale = 1 / np.sqrt(squares / x.shape[0]) if squares > 0 else 1.0

    def _turned(self, x: Rows) -> Rows:
        if is_sparse(x):
            return (x * self._scale).tocsr()
        rows = (x - self._mean) * self._scale
        return rows if self._directions is None else rows @ self._directions


def fits(
    x: Rows, y: np.ndarray, strengths: Sequence[float], num_classes: int | None, weights: np.ndarray | None = None
) -> Iterator[list[Any]]:
    """Models for each strength, one for each column of labels; each fit begins where the one before ended."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge

    columns = [y] if y.ndim == 1 else [*y.astype(int).T]
    if num_classes is None:
        for strength in strengths:
            yield [Ridge(alpha=1 / strength).fit(x, y, weights)]
        return
    settings: Any = {"max_iter": ITERATIONS, "tol": TOLERANCE, "warm_start": True}
    models = [LogisticRegression(**settings) if len(np.unique(column)) > 1 else None for column in columns]
    for strength in strengths:
        for model, column in zip(models, columns, strict=True):
            if model is not None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)  # a weak penalty is near enough by then
                    model.set_params(C=strength).fit(x, column, weights)
        yield [model or column[0] for model, column in zip(models, columns, strict=True)]


def predicted_by(models: Sequence[Any], x: Rows, num_classes: int | None, several: bool) -> Predicted:
    """Probabilities of all classes, also those without a training label, or of each label; or numbers."""
    if num_classes is None:
        return models[0].predict(x)
    if several:
        columns = [m.predict_proba(x)[:, 1] if hasattr(m, "classes_") else np.full(x.shape[0], m) for m in models]
        return np.stack(columns, axis=1).astype(float)
    model, found = models[0], np.zeros((x.shape[0], num_classes))
    if hasattr(model, "classes_"):
        found[:, model.classes_] = model.predict_proba(x)
    else:
        found[:, model] = 1.0  # the only class that there is
    return found


def is_sparse(x: Rows) -> bool:
    """Whether rows are a scipy matrix."""
    return hasattr(x, "tocsr")
