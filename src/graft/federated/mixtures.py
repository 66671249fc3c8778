"""Gaussian mixtures of features: what a client sends of a class in the place of its samples."""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np

Covariance = Literal["spherical", "diag", "full"]


@dataclass(frozen=True)
class Mixture:
    """Weights `(K,)`, means `(K, D)` and covariances of a class's features, in float32, and how many samples it is of.

    Covariances are variances `(K,)` (spherical) or `(K, D)` (diag), or matrices `(K, D, D)` (full).
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    samples: int

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """What is sent, beside the number of samples."""
        return self.weights, self.means, self.covariances

    @property
    def bytes(self) -> int:
        """Bytes of the message: a full covariance is symmetric, so that half of it is enough; 8 for the number."""
        size = sum(array.nbytes for array in self.arrays)
        if self.covariances.ndim == 3:
            components, side, _ = self.covariances.shape
            size -= components * side * (side - 1) // 2 * self.covariances.itemsize
        return size + 8

    @property
    def is_finite(self) -> bool:
        """Whether no number is NaN or infinite."""
        return all(np.isfinite(array).all() for array in self.arrays)

    def draw(self, samples: int, random: np.random.Generator) -> np.ndarray:
        """Features `(samples, D)` from the mixture, float32."""
        weights = self.weights.astype(np.float64)
        chosen = random.choice(len(weights), size=samples, p=weights / weights.sum())
        noise = random.standard_normal((samples, self.means.shape[1]))
        if self.covariances.ndim == 1:
            spread = np.sqrt(self.covariances)[chosen][:, None] * noise
        elif self.covariances.ndim == 2:
            spread = np.sqrt(self.covariances)[chosen] * noise
        else:
            roots = np.linalg.cholesky(self.covariances.astype(np.float64))
            spread = np.einsum("nij,nj->ni", roots[chosen], noise)
        return (self.means[chosen] + spread).astype(np.float32)


def fit(features: np.ndarray, components: int, covariance: Covariance, floor: float, seed: int) -> Mixture:
    """A mixture of features `(N, D)` of one class, of at most one component for two samples; NaN where they are.

    `floor` is added to variances, so that a class of one sample has some. scikit-learn fits it by EM.
    """
    if not np.isfinite(features).all():
        nothing = np.full((1, features.shape[1]), np.nan, np.float32)
        return Mixture(np.ones(1, np.float32), nothing, nothing, len(features))
    wide = features.astype(np.float64)
    number = max(1, min(components, len(wide) // 2))
    if number == 1:
        return of_moments(wide, covariance, floor)
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(number, covariance_type=covariance, reg_covar=floor, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of copies of one sample: as good as it gets
        model.fit(wide)
    return in_float32(model.weights_, model.means_, model.covariances_, len(wide))


def of_moments(features: np.ndarray, covariance: Covariance, floor: float) -> Mixture:
    """One Gaussian with the features' mean and covariance, as the maximum of the likelihood."""
    mean = features.mean(0)
    centred = features - mean
    match covariance:
        case "full":
            found = centred.T @ centred / len(features) + floor * np.eye(len(mean))
        case "diag":
            found = centred.var(0) + floor
        case "spherical":
            found = (centred.var(0) + floor).mean()
    return in_float32(np.ones(1), mean[None], np.asarray(found)[None], len(features))


def in_float32(weights: np.ndarray, means: np.ndarray, covariances: np.ndarray, samples: int) -> Mixture:
    """A message of these numbers."""
    return Mixture(weights.astype(np.float32), means.astype(np.float32), covariances.astype(np.float32), samples)
