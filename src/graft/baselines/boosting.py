"""Gradient boosting, which is hard to beat on tables: the score that a network has to be seen beside."""

import itertools
import warnings
from collections.abc import Iterator, Sequence

import numpy as np

from graft.baselines.base import Predicted, Rows
from graft.baselines.folds import loss

TREES = 200
LEARNING_RATE = 0.05
MAX_NUMBERS = 1000  # numeric columns that trees are grown on: time goes with them
MAX_CATEGORIES = 255  # that scikit-learn's trees can hold; a column with more is split as numbers


class GradientBoosting:
    """scikit-learn's HistGradientBoosting; how many trees are used is chosen by the loss on the validation split.

    Of more than MAX_NUMBERS numeric columns, the trees see those whose F statistic on training rows is the highest.
    """

    def __init__(self, categories: Sequence[int | None], x_val: Rows, y_val: np.ndarray) -> None:
        """How many codes each column has, None for numbers; rows `(N, D)`, NaN where missing, and validation labels."""
        self.categories = categories
        self.x_val, self.y_val = x_val, y_val

    def fit(self, x: Rows, y: np.ndarray, num_classes: int | None) -> str:
        """Grow all trees, and find how many of them predict validation best."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        method = HistGradientBoostingRegressor if num_classes is None else HistGradientBoostingClassifier
        self._chosen = chosen_columns(x, y, self.categories, num_classes)
        self._num_classes = num_classes
        kept = [codes for codes, one in zip(self.categories, self._chosen, strict=True) if one]
        most = max((codes for codes in kept if codes is not None), default=0)
        self._model = method(
            max_iter=TREES,
            learning_rate=LEARNING_RATE,
            min_samples_leaf=max(1, min(20, len(x) // 10)),  # small label budgets need small leaves
            categorical_features=[codes is not None and codes <= MAX_CATEGORIES for codes in kept],
            max_bins=min(MAX_CATEGORIES, max(len(x), most, 2)),  # time and memory of wide tables go with them
            early_stopping=False,  # which would hold back training rows
            random_state=0,
        ).fit(x[:, self._chosen], y)
        self._trees = TREES
        if not len(self.y_val):
            return f"{TREES} trees"
        losses = [loss(one, self.y_val, num_classes) for one in self._staged(self.x_val)]
        self._trees = int(np.argmin(losses)) + 1
        return f"{self._trees} trees, chosen on the validation split"

    def predict(self, x: Rows) -> Predicted:
        """By as many trees as were best."""
        return next(itertools.islice(self._staged(x), self._trees - 1, None))

    def _staged(self, x: Rows) -> Iterator[Predicted]:
        """Predictions by one tree, by two, and so on; of all classes, also those without a training row."""
        if self._num_classes is None:
            yield from self._model.staged_predict(x[:, self._chosen])
            return
        for found in self._model.staged_predict_proba(x[:, self._chosen]):
            predicted = np.zeros((len(x), self._num_classes))
            predicted[:, self._model.classes_] = found
            yield predicted


def chosen_columns(x: Rows, y: np.ndarray, categories: Sequence[int | None], num_classes: int | None) -> np.ndarray:
    """Which columns the trees see, `(D,)`: all but numbers that say little of the label alone."""
    from sklearn.feature_selection import f_classif, f_regression

    numeric = np.array([codes is None for codes in categories])
    chosen = np.ones(len(numeric), dtype=bool)
    if numeric.sum() > MAX_NUMBERS:
        with warnings.catch_warnings():  # of constant columns, whose statistic is NaN
            warnings.simplefilter("ignore")
            statistic = f_regression if num_classes is None else f_classif
            scores, _ = statistic(np.nan_to_num(x[:, numeric]), y)  # standardised: 0 is the mean
        order = np.argsort(-np.nan_to_num(scores, nan=-1.0), kind="stable")
        chosen[np.flatnonzero(numeric)[order[MAX_NUMBERS:]]] = False
    return chosen
