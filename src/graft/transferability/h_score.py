"""H-score: how far the classes' mean features lie apart, by the features' covariance (Bao et al., ICIP 2019)."""

import numpy as np
from sklearn.covariance import ledoit_wolf_shrinkage

from graft.transferability.base import Evidence, Measure, directions


class HScore(Measure):
    """tr(pinv(cov F) cov(E[F given y])), with the covariance as the samples have it."""

    name, title = "h_score", "H-score"
    paper = "Bao et al., An Information-theoretic Approach to Transferability in Task Transfer Learning, ICIP 2019"
    means = "how much of the features' variance lies between the classes, in units of the features' covariance"
    not_for = "features of nearly as many numbers as there are samples, or more: it rises with their size alone"

    def value(self, evidence: Evidence) -> float:
        """At most the number of classes less one."""
        left, _ = directions(evidence.features - evidence.features.mean(0))
        sums = evidence.columns.T @ left  # (K, R)
        return float((np.square(sums).sum(1) / np.maximum(evidence.columns.sum(0), 1)).sum())


class RegularisedHScore(Measure):
    """The same with Ledoit and Wolf's shrunk covariance, times what the shrinkage leaves."""

    name, title = "h_score_regularised", "H-score, regularised"
    paper = "Ibrahim et al., Newer is not always better: Rethinking transferability metrics, ECML PKDD 2022"
    means = "the H-score with a covariance that few samples can estimate (Ledoit and Wolf's)"
    not_for = "full fine-tuning, which moves the features; values of other data do not compare"

    def value(self, evidence: Evidence) -> float:
        """At most the number of classes less one."""
        x = evidence.features - evidence.features.mean(0)
        if not x.any():
            return 0.0
        samples, size = x.shape
        shrinkage = ledoit_wolf_shrinkage(x, assume_centered=True)
        left, singular = directions(x)
        variances = singular**2 / samples
        shrunk = (1 - shrinkage) * variances + shrinkage * variances.sum() / size
        counts = np.maximum(evidence.columns.sum(0), 1)
        means = evidence.columns.T @ (left * singular) / counts[:, None]  # (K, R)
        between = (counts[:, None] / samples * np.square(means)).sum(0)
        return float((1 - shrinkage) * (between / shrunk).sum())
