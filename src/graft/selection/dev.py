"""The checkpoint with the lowest source loss once source samples are weighed as the target has them."""

import numpy as np

from graft.selection.base import ClassPredictions
from graft.selection.candidate import Candidate
from graft.selection.logistic import fitted_probabilities
from graft.selection.source_classes import check_same_classes


class DEV(ClassPredictions):
    """Deep embedded validation: the lowest density-weighted source validation loss (You et al., ICML 2019).

    The density ratio of target to source features is that of a domain classifier, fitted on source training and
    target validation rows; a control variate keeps the estimate's variance down.
    """

    name = "dev"
    domains = ("source", "target")
    higher_score_is_better = False
    check = check_same_classes

    def score(self, candidate: Candidate) -> float:
        """The weighted cross entropy of the source's validation rows."""
        source, target, val = candidate.rows("source", "train"), candidate.rows("target"), candidate.rows("source")
        assert val.labels is not None  # of the source
        ratio = density_ratio(source.features.numpy(), target.features.numpy(), val.features.numpy())
        losses = -val.probabilities.gather(1, val.labels[:, None]).clamp(min=1e-300).log().squeeze(1)
        return with_control_variate(ratio * losses.numpy(), ratio)


def density_ratio(source: np.ndarray, target: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Density of the target over that of the source `(M,)` at rows `of`, from the odds of a domain classifier."""
    rows = np.concatenate([source, target])
    domains = np.repeat([0, 1], [len(source), len(target)])
    _, probabilities = fitted_probabilities(rows, domains, of)
    return len(source) / len(target) * probabilities[:, 1] / np.maximum(probabilities[:, 0], 1e-300)


def with_control_variate(weighted: np.ndarray, weights: np.ndarray) -> float:
    """Mean of weighted losses `(M,)`, corrected by the weights `(M,)`, whose expectation is 1."""
    covariance = np.cov(weighted, weights)  # (2, 2)
    eta = -covariance[0, 1] / covariance[1, 1] if covariance[1, 1] > 0 else 0.0
    return float(weighted.mean() + eta * (weights.mean() - 1))
