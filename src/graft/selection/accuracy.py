"""Accuracy on unlabelled data: average thresholded confidence (Garg et al., ICLR 2022)."""

import torch
from torch import Tensor

from graft.selection.candidate import Rows


def estimated_accuracy(source: Rows, target: Rows) -> dict[str, float]:
    """The target's accuracy by two measures of confidence: the largest probability, and the negative entropy."""
    measures = {
        "max_confidence": lambda rows: rows.probabilities.amax(dim=1),
        "negative_entropy": lambda rows: -torch.special.entr(rows.probabilities).sum(dim=1),
    }
    return {name: above_threshold(of(source), source.correct, of(target)) for name, of in measures.items()}


def above_threshold(source: Tensor, correct: Tensor, target: Tensor) -> float:
    """The share of `target` `(M,)` from a threshold on, below which as many of `source` `(N,)` lie as are wrong."""
    errors = int((~correct).sum())
    threshold = source.sort().values[errors] if errors < len(source) else torch.inf
    return float((target >= threshold).double().mean())
