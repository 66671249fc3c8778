"""Closed-form alignment: source rows are mapped onto the target's inputs, then a linear model is fitted on them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from graft.baselines.base import Predicted
from graft.baselines.linear import Linear

AlignerName = Literal["aligned_z", "aligned_coral", "aligned_subspace", "aligned_ot"]

RIDGE = 1.0  # added to the variances of CORAL's standardised rows, as its authors do
SHRINKAGE = 1e-3  # of the mean variance, added to each variance before optimal transport
EXPLAINED = 0.9  # share of variance that the subspace of either domain keeps

RowMap = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Alignment:
    """Maps of each domain's rows into one space."""

    source: RowMap
    target: RowMap
    note: str = ""


class Aligned:
    """A linear model on the source's labels after alignment of the rows; the target gives inputs alone."""

    def __init__(self, name: str, target: np.ndarray) -> None:
        """`name` is one of ALIGNERS, `target` are the target's training rows `(M, D)`."""
        self._align, self._target = ALIGNERS[name], target

    def fit(self, x: np.ndarray, y: np.ndarray, num_classes: int | None) -> str:
        """Align in float64, then fit on the aligned source rows."""
        alignment = self._align(x.astype(np.float64), self._target.astype(np.float64))
        self._linear, self._map = Linear(), alignment.target
        chosen = self._linear.fit(alignment.source(x).astype(x.dtype), y, num_classes)
        return "; ".join(filter(None, (chosen, alignment.note)))

    def predict(self, x: np.ndarray) -> Predicted:
        """What rows `(N, D)` of the target are."""
        return self._linear.predict(self._map(x).astype(x.dtype))


def z_scores(source: np.ndarray, target: np.ndarray) -> Alignment:
    """Each domain by its own mean and standard deviation."""
    return Alignment(standardisation(source), standardisation(target))


def coral(source: np.ndarray, target: np.ndarray) -> Alignment:
    """Standardised source rows whitened by their covariance and coloured by the target's (Sun et al., AAAI 2016)."""
    of_source, of_target = standardisation(source), standardisation(target)
    ridge = RIDGE * np.eye(source.shape[1])
    whiten = power(covariance(of_source(source)) + ridge, -0.5)
    color = power(covariance(of_target(target)) + ridge, 0.5)
    recolor = whiten @ color
    return Alignment(lambda rows: of_source(rows) @ recolor, of_target)


def subspaces(source: np.ndarray, target: np.ndarray) -> Alignment:
    """The source's principal components turned into the target's (Fernando et al., ICCV 2013)."""
    of_source, of_target = standardisation(source), standardisation(target)
    source_values, source_axes = principal(of_source(source))
    target_values, target_axes = principal(of_target(target))
    dims = max(explaining(source_values), explaining(target_values))
    source_axes, target_axes = source_axes[:, :dims], target_axes[:, :dims]
    aligned_axes = source_axes @ (source_axes.T @ target_axes)
    note = f"{dims} components, {EXPLAINED:.0%} of the variance of either domain"
    return Alignment(lambda rows: of_source(rows) @ aligned_axes, lambda rows: of_target(rows) @ target_axes, note)


def optimal_transport(source: np.ndarray, target: np.ndarray) -> Alignment:
    """The linear optimal transport map between the domains as Gaussians (Flamary et al., 2019)."""
    mean, to_mean = source.mean(axis=0), target.mean(axis=0)
    of_source, of_target = shrunk(covariance(source)), shrunk(covariance(target))
    root, inverse_root = power(of_source, 0.5), power(of_source, -0.5)
    transport = inverse_root @ power(root @ of_target @ root, 0.5) @ inverse_root
    return Alignment(lambda rows: to_mean + (rows - mean) @ transport, lambda rows: rows)


ALIGNERS: dict[str, Callable[[np.ndarray, np.ndarray], Alignment]] = {
    "aligned_z": z_scores,
    "aligned_coral": coral,
    "aligned_subspace": subspaces,
    "aligned_ot": optimal_transport,
}


def standardisation(rows: np.ndarray) -> RowMap:
    """The map to mean 0 and standard deviation 1 of some rows; a column that is constant in them is only centred."""
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    deviation[deviation < 1e-12 + 1e-6 * np.abs(mean)] = 1.0  # rounding, where a constant is no binary fraction
    return lambda others: (others - mean) / deviation


def covariance(rows: np.ndarray) -> np.ndarray:
    """`(D, D)`, divided by the number of rows."""
    centred = rows - rows.mean(axis=0)
    return centred.T @ centred / len(rows)


def shrunk(matrix: np.ndarray) -> np.ndarray:
    """A covariance that has an inverse, also of fewer rows than columns."""
    mean_variance = np.trace(matrix) / len(matrix)
    return matrix + (SHRINKAGE * mean_variance or 1.0) * np.eye(len(matrix))


def power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    """A power of a symmetric positive matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * values.clip(np.finfo(float).tiny) ** exponent) @ vectors.T


def principal(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances `(D,)`, the largest first, and axes `(D, D)` in its columns."""
    values, vectors = np.linalg.eigh(covariance(rows))
    return values[::-1].clip(0), vectors[:, ::-1]


def explaining(values: np.ndarray) -> int:
    """How many of the first components explain EXPLAINED of the variance."""
    reached = np.cumsum(values) >= EXPLAINED * values.sum()
    return int(np.argmax(reached)) + 1
