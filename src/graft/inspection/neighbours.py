"""The training samples that a network sees as most like a test sample."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor


def nearest(queries: Tensor, rows: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Cosine similarity and place `(Q, number)` of the rows `(N, D)` nearest to each query `(Q, D)`."""
    similarity = F.normalize(queries, dim=1) @ F.normalize(rows, dim=1).T
    found = similarity.topk(min(number, len(rows)), dim=1)
    return found.values, found.indices


def surely_wrong(found: Mapping[str, Any], number: int) -> list[int]:
    """Rows of a run's test predictions that are wrong, by how probable they call the wrong class; errors of numbers.

    Empty for several labels a sample.
    """
    return ordered(found, wrong=True)[:number]


def surely_right(found: Mapping[str, Any], number: int) -> list[int]:
    """Rows that are right, the most probable first; the smallest errors of numbers."""
    return ordered(found, wrong=False)[:number]


def ordered(found: Mapping[str, Any], *, wrong: bool) -> list[int]:
    """The rows that are wrong or right, the surest first."""
    labels, predictions = found["label"], found["prediction"]
    if not labels or isinstance(labels[0], list):
        return []
    if found["classes"] is None:
        errors = np.abs(np.array(labels, dtype=float) - np.array(predictions, dtype=float))
        return np.argsort(-errors if wrong else errors, kind="stable").tolist()
    confidence = np.asarray(found["probabilities"]).max(axis=1)
    rows = np.argsort(-confidence, kind="stable").tolist()
    return [row for row in rows if (labels[row] != predictions[row]) == wrong]
