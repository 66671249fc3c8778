"""PARC: whether samples that differ in their features differ in their labels too (Bolya et al., NeurIPS 2021)."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from scipy.stats import rankdata

from graft.transferability.base import Evidence, Kind, Measure


class PARC(Measure):
    """Spearman correlation of pairwise dissimilarities, 1 - Pearson's correlation, of features and of labels."""

    name, title = "parc", "PARC"
    paper = "Bolya et al., Scalable Diverse Model Selection for Accessible Transfer Learning, NeurIPS 2021"
    means = "whether samples with unlike features have unlike labels, over all pairs"
    not_for = (
        "many classes, where nearly all pairs differ alike; it is about distances, not about what a head can learn"
    )
    kinds: ClassVar[Sequence[Kind]] = ("classes", "labels", "numbers")
    most = 500  # as its authors take; pairs are their square

    def value(self, evidence: Evidence) -> float:
        """Between -1 and 1."""
        pairs = np.tril_indices(len(evidence.labels), -1)
        if evidence.kind == "numbers":
            of_labels = np.abs(evidence.columns - evidence.columns.T)
        else:
            of_labels = 1 - correlations(evidence.columns)
        return spearman((1 - correlations(evidence.features))[pairs], of_labels[pairs])


def correlations(rows: np.ndarray) -> np.ndarray:
    """Pearson's of every two rows `(N, D)`; a constant row has none with others, which counts as 0."""
    centred = rows - rows.mean(1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.where(norms > 0, norms, 1.0)
    return unit @ unit.T


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Of two lists of numbers; 0 where one is constant."""
    a, b = (rankdata(one) - (len(one) + 1) / 2 for one in (a.round(12), b.round(12)))
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norm) if norm > 0 else 0.0
