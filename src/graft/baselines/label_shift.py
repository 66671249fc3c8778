"""Label shift: class shares of the target estimated from a source classifier's predictions, which they correct."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from graft.baselines.base import Predicted, Rows
from graft.baselines.folds import SMALLEST
from graft.baselines.linear import Linear

EstimatorName = Literal["label_shift_bbse", "label_shift_mlls"]

MISMATCH = 0.1  # total variation between the shares of classes above which results carry a note
STEPS, TOLERANCE = 10_000, 1e-8  # of expectation maximisation: at most, and the change of a share that ends it


class LabelShift:
    """The source's linear model with its probabilities calibrated, then reweighted to estimated target priors.

    Calibration and confusion are read from held-out predictions in the source's training rows.
    """

    def __init__(self, name: str, target: Rows) -> None:
        """`name` is one of ESTIMATORS, `target` are the target's training rows `(M, D)`."""
        self._estimate, self._target = ESTIMATORS[name], target

    def fit(self, x: Rows, y: np.ndarray, num_classes: int | None) -> str:
        """Fit on the source, calibrate, and estimate the target's priors; a class without a held-out label gets 0."""
        assert num_classes is not None  # a task without classes is not planned
        self._linear, self._num_classes = Linear(), num_classes
        chosen = self._linear.fit(x, y, num_classes)
        counts = np.bincount(y, minlength=num_classes)
        self.source_priors = counts / counts.sum()
        held, rows = self._linear.held_out(x, y, num_classes)
        self._seen, labels = np.unique(y[rows], return_inverse=True)
        self._calibration = calibration(held[:, self._seen], labels)
        estimated = self._estimate(self._calibration(held[:, self._seen]), labels, self._calibrated(self._target))
        self.target_priors = np.zeros(num_classes)
        self.target_priors[self._seen] = estimated
        return chosen

    def predict(self, x: Rows) -> Predicted:
        """Probabilities under the target's priors."""
        found = np.zeros((x.shape[0], self._num_classes))
        ratio = (self.target_priors / np.maximum(self.source_priors, SMALLEST))[self._seen]
        found[:, self._seen] = reweighted(self._calibrated(x), ratio)
        return found

    def record(self, classes: Sequence[str]) -> dict[str, Any]:
        """What results.json holds: priors by domain and class, and a note where they differ by more than MISMATCH."""
        priors = {"source": self.source_priors, "target": self.target_priors}
        found: dict[str, Any] = {
            "priors": {domain: dict(zip(classes, of.tolist(), strict=True)) for domain, of in priors.items()}
        }
        difference = 0.5 * np.abs(self.target_priors - self.source_priors).sum()
        if difference > MISMATCH:
            found["note"] = (
                f"prior mismatch: estimated class shares of the target differ from the source's by {difference:.2f} "
                f"(total variation, above {MISMATCH:g}); information maximisation assumes equal shares, and the "
                "estimate that each class looks alike in both domains"
            )
        return found

    def _calibrated(self, x: Rows) -> Predicted:
        return self._calibration(self._linear.predict(x)[:, self._seen])


def bbse(held: Predicted, labels: np.ndarray, target: Predicted) -> np.ndarray:
    """Priors `(K,)` from the confusion of held-out source predictions (Lipton et al., ICML 2018), by non-negative least
    squares: exact where the confusion's inverse gives no negative weight."""
    from scipy.optimize import nnls

    classes = held.shape[1]
    confusion = np.zeros((classes, classes))  # share of source rows by predicted and by true class
    np.add.at(confusion, (held.argmax(axis=1), labels), 1 / len(labels))
    predicted = np.bincount(target.argmax(axis=1), minlength=classes) / len(target)
    weights, _ = nnls(confusion, predicted)
    source = confusion.sum(axis=0)
    priors = weights * source
    return priors / priors.sum() if priors.any() else source  # all is predicted as what held-out rows never are


def mlls(held: Predicted, labels: np.ndarray, target: Predicted) -> np.ndarray:
    """The priors `(K,)` most likely to give the target's predictions, by expectation maximisation (Saerens, 2002)."""
    source = np.bincount(labels, minlength=held.shape[1]) / len(labels)
    priors = source
    for _ in range(STEPS):
        before, priors = priors, reweighted(target, priors / source).mean(axis=0)
        if np.abs(priors - before).max() < TOLERANCE:
            break
    return priors


ESTIMATORS: dict[str, Callable[[Predicted, np.ndarray, Predicted], np.ndarray]] = {
    "label_shift_bbse": bbse,
    "label_shift_mlls": mlls,
}


def calibration(held: Predicted, labels: np.ndarray) -> Callable[[Predicted], Predicted]:
    """Bias-corrected temperature scaling of probabilities by held-out labels (Alexandari et al., ICML 2020)."""
    from scipy.optimize import minimize
    from scipy.special import log_softmax, softmax

    logits = np.log(np.clip(held, SMALLEST, 1))
    truth = np.eye(held.shape[1])[labels]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scores = parameters[0] * logits + parameters[1:]
        residual = (softmax(scores, axis=1) - truth) / len(labels)
        value = -(truth * log_softmax(scores, axis=1)).sum() / len(labels)
        return value, np.concatenate([[(residual * logits).sum()], residual.sum(axis=0)])

    start = np.concatenate([[1.0], np.zeros(held.shape[1])])
    bounds = [(0.05, 20.0), *[(-10.0, 10.0)] * held.shape[1]]  # of held-out rows without an error the best is infinite
    scale, *biases = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return lambda probabilities: softmax(scale * np.log(np.clip(probabilities, SMALLEST, 1)) + biases, axis=1)


def reweighted(probabilities: Predicted, ratio: np.ndarray) -> Predicted:
    """Posteriors after the priors are multiplied by `ratio` `(K,)`."""
    weighted = probabilities * ratio
    return weighted / np.maximum(weighted.sum(axis=1, keepdims=True), np.finfo(float).tiny)
