"""Gradient boosting, which is hard to beat on tables: the score that a network has to be seen beside."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from graft.columns import FIRST, MISSING
from graft.data.domain import Split
from graft.data.table_rows import rows_of
from graft.tasks import Regression, Task

TREES = 200
LEARNING_RATE = 0.05
MAX_CATEGORIES = 255  # that scikit-learn's trees can hold; a column with more is split as numbers


class GradientBoosting:
    """scikit-learn's HistGradientBoosting; how many trees are used is chosen by the loss on the validation part."""

    name = "gradient boosting"

    def outputs(self, train: Split, val: Split, test: Split, task: Task, seed: int) -> Tensor:
        """Outputs `(N, K)` for the test part: scores of classes, or a standardised number."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        regression = isinstance(task, Regression)
        method = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
        labels = train.labels.double().sub(task.mean).div(task.std) if regression else train.labels
        model = method(
            max_iter=TREES,
            learning_rate=LEARNING_RATE,
            min_samples_leaf=max(1, min(20, len(train) // 10)),  # small label budgets need small leaves
            categorical_features=categorical(train),
            early_stopping=False,
            random_state=seed,
        ).fit(values(train), labels.numpy())
        places = None if regression else model.classes_
        classes = None if regression else max(int(split.labels.max()) for split in (train, val, test)) + 1

        def staged(split: Split) -> Iterator[Tensor]:
            stages = model.staged_predict if regression else model.staged_decision_function
            for scores in stages(values(split)):
                yield as_outputs(torch.from_numpy(scores).float(), places, classes, task.outputs_of_two)

        losses = [float(task.loss(outputs, val.labels)) for outputs in staged(val)]
        best = int(np.argmin(losses))
        return next(outputs for number, outputs in enumerate(staged(test)) if number == best)


