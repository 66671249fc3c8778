"""Gradient boosting, which is hard to beat on tables: the score that a network has to be seen beside."""

import warnings
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from graft.baselines.base import Predicted, Rows
from graft.baselines.folds import choose, how_chosen

TREES = 200  # at most
DEFAULT = 100  # where no label can be held out
LEARNING_RATE = 0.05
MAX_NUMBERS = 1000  # numeric columns that trees are grown on: time goes with them
MAX_CATEGORIES = 255  # that scikit-learn's trees can hold; a column with more is split as numbers


class GradientBoosting:
    """scikit-learn's HistGradientBoosting; how many trees are grown is chosen by cross-validation.

    Of more than MAX_NUMBERS numeric columns, the trees see those whose F statistic on training rows is the highest.
    """

    def __init__(self, categories: Sequence[int | None]) -> None:
        """How many codes each column of the rows `(N, D)` has, None for numbers; NaN is a missing value."""
        self.categories = categories

    def fit(self, x: Rows, y: np.ndarray, num_classes: int | None) -> str:
        """Choose the number of trees, then grow them on all rows."""

        def path(kept: np.ndarray, held: np.ndarray) -> Iterator[Predicted]:
            yield from Trees(x[kept], y[kept], self.categories, num_classes, TREES).staged(x[held])

        trees = int(choose(range(1, TREES + 1), DEFAULT, path, y, num_classes))
        self._trees = Trees(x, y, self.categories, num_classes, trees)
        return how_chosen("trees", trees, y, num_classes)

    def predict(self, x: Rows) -> Predicted:
        """By all trees."""
        return deque(self._trees.staged(x), maxlen=1).pop()


class Trees:
    """Trees that were grown on some rows."""

    def __init__(
        self, x: Rows, y: np.ndarray, categories: Sequence[int | None], num_classes: int | None, number: int
    ) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        method = HistGradientBoostingRegressor if num_classes is None else HistGradientBoostingClassifier
        self.columns, self.num_classes = chosen_columns(x, y, categories, num_classes), num_classes
        seen = [codes for codes, one in zip(categories, self.columns, strict=True) if one]
        most = max((codes for codes in seen if codes is not None), default=0)
        self.model = method(
            max_iter=number,
            learning_rate=LEARNING_RATE,
            min_samples_leaf=max(1, min(20, len(x) // 10)),  # small label budgets need small leaves
            categorical_features=[codes is not None and codes <= MAX_CATEGORIES for codes in seen],
            max_bins=min(MAX_CATEGORIES, max(len(x), most, 2)),  # time and memory of wide tables go with them
            early_stopping=False,  # which would hold back training rows
            random_state=0,
        ).fit(x[:, self.columns], y)

    def staged(self, x: Rows) -> Iterator[Predicted]:
        """Predictions by one tree, by two, and so on; of all classes, also those without a training row."""
        if self.num_classes is None:
            yield from self.model.staged_predict(x[:, self.columns])
            return
        for found in self.model.staged_predict_proba(x[:, self.columns]):
            predicted = np.zeros((len(x), self.num_classes))
            predicted[:, self.model.classes_] = found
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
