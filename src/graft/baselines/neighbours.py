"""The labels of the nearest training rows."""

from collections.abc import Iterator

import numpy as np

from graft.baselines.base import Predicted, Rows, one_hot
from graft.baselines.folds import choose, how_chosen

COUNTS = (1, 5, 20)  # neighbours that are asked
DEFAULT = 1


class Neighbours:
    """scikit-learn's NearestNeighbors; how many of them are asked is chosen by cross-validation."""

    def __init__(self, metric: str = "cosine") -> None:
        """`metric` is cosine, or euclidean for columns, whose length says something."""
        self.metric = metric

    def fit(self, x: Rows, y: np.ndarray, num_classes: int | None) -> str:
        """Choose their number, and keep the rows."""
        answers = one_hot(y, num_classes)

        def path(kept: np.ndarray, held: np.ndarray) -> Iterator[Predicted]:
            nearest = self._nearest(x[kept], x[held], max(COUNTS))
            yield from (answers[kept][nearest[:, :count]].mean(axis=1) for count in COUNTS)

        self._count = int(choose(COUNTS, DEFAULT, path, y, num_classes))
        self._rows, self._answers = x, answers
        return how_chosen("neighbours", self._count, y, num_classes)

    def predict(self, x: Rows) -> Predicted:
        """The mean of the neighbours' labels."""
        return self._answers[self._nearest(self._rows, x, self._count)].mean(axis=1)

    def _nearest(self, known: Rows, asked: Rows, count: int) -> np.ndarray:
        """Indices `(N, count)` of the known rows that are nearest to each row, fewer where there are no more."""
        from sklearn.neighbors import NearestNeighbors

        search = NearestNeighbors(n_neighbors=min(count, known.shape[0]), metric=self.metric, algorithm="brute")
        return search.fit(known).kneighbors(asked, return_distance=False)
