"""Gradient boosting, which is hard to beat on tables: the score that a network has to be seen beside."""

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from graft.data.samples import Split, rows_of
from graft.inputs.columns import FIRST, MISSING

TREES = 200
LEARNING_RATE = 0.05
MAX_NUMBERS = 1000  # numeric columns that trees are grown on: time goes with them
MAX_CATEGORIES = 255  # that scikit-learn's trees can hold; a column with more is split as numbers


class GradientBoosting:
    """scikit-learn's HistGradientBoosting; how many trees are used is chosen by the loss on the validation split.

    Of more than MAX_NUMBERS numeric columns, the trees see those whose F statistic on training rows is the highest.
    """

    name = "gradient boosting"

    def predictions(self, train: Split, val: Split, test: Split, classes: int | None, seed: int) -> Tensor:
        """Probabilities `(N, K)` of the test split's classes, or numbers `(N,)` where there are none."""
        with threadpool_limits(torch.get_num_threads(), "openmp"):  # as many as the job has; more would wait in turn
            return self._predictions(train, val, test, classes, seed)

    def _predictions(self, train: Split, val: Split, test: Split, classes: int | None, seed: int) -> Tensor:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        assert train.labels is not None
        assert val.labels is not None
        method = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
        chosen = chosen_columns(train, classes)
        model = method(
            max_iter=TREES,
            learning_rate=LEARNING_RATE,
            min_samples_leaf=max(1, min(20, len(train) // 10)),  # small label budgets need small leaves
            categorical_features=[one for one, kept in zip(categorical(train), chosen, strict=True) if kept],
            max_bins=bins(train),
            early_stopping=False,  # which would hold back training rows
            random_state=seed,
        ).fit(values(train)[:, chosen], train.labels.numpy())

        def staged(split: Split) -> Iterator[Tensor]:
            stages = model.staged_predict_proba if classes else model.staged_predict
            yield from (torch.from_numpy(predicted).float() for predicted in stages(values(split)[:, chosen]))

        losses = [loss(predicted, val.labels) for predicted in staged(val)]
        best = int(np.argmin(losses))
        return next(predicted for number, predicted in enumerate(staged(test)) if number == best)


def values(split: Split) -> np.ndarray:
    """Numbers and codes `(N, columns)`, NaN where one is missing."""
    rows = rows_of(split)
    codes = torch.where(rows.codes == MISSING, torch.nan, rows.codes - 1.0)
    return torch.cat([rows.numbers, codes], dim=1).numpy()


def chosen_columns(train: Split, classes: int | None) -> np.ndarray:
    """Which columns of `values` the trees see, `(columns,)`: all but numbers that say little of the label alone."""
    from sklearn.feature_selection import f_classif, f_regression

    numbers = rows_of(train).numbers.numpy()
    assert train.labels is not None  # there is no baseline without
    chosen = np.ones(values(train).shape[1], dtype=bool)
    if numbers.shape[1] > MAX_NUMBERS:
        with warnings.catch_warnings():  # of constant columns, whose statistic is NaN
            warnings.simplefilter("ignore")
            statistic = f_classif if classes else f_regression
            scores, _ = statistic(np.nan_to_num(numbers), train.labels.numpy())  # standardised: 0 is the mean
        order = np.argsort(-np.nan_to_num(scores, nan=-1.0), kind="stable")
        chosen[order[MAX_NUMBERS:]] = False
    return chosen


def categorical(split: Split) -> list[bool]:
    """Which columns of `values` hold codes that mean nothing as numbers."""
    columns = rows_of(split).columns
    few = [FIRST + len(column.categories) <= MAX_CATEGORIES for column in columns.categorical]
    return [False] * len(columns.numeric) + few


def bins(split: Split) -> int:
    """How many bins a column's values can need: time and memory of wide tables with few rows go with it."""
    most = max((FIRST + len(column.categories) for column in rows_of(split).columns.categorical), default=0)
    return min(MAX_CATEGORIES, max(len(split), most, 2))


def loss(predicted: Tensor, labels: Tensor) -> float:
    """Mean negative logarithm of the true classes' probabilities, or mean squared error."""
    if predicted.ndim == 1:
        return float((predicted - labels).square().mean())
    return float(-predicted.gather(1, labels[:, None]).clamp(min=1e-12).log().mean())
