"""What is reached without looking at a sample: the most frequent class, or the middle number."""

import numpy as np

from graft.baselines.base import Predicted, Rows, one_hot


class Majority:
    """Every sample has the shares of the training labels; of numbers their median, which the absolute error wants."""

    def fit(self, x: Rows, y: np.ndarray, num_classes: int | None) -> str:
        """Count the labels."""
        self.answer = np.median(y) if num_classes is None else one_hot(y, num_classes).mean(axis=0)
        return ""

    def predict(self, x: Rows) -> Predicted:
        """The same for each row."""
        return np.broadcast_to(self.answer, (x.shape[0], *np.shape(self.answer)))
