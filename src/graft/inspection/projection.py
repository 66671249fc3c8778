"""Features in the plane: principal components, and t-SNE where openTSNE is installed."""

import importlib.util

import numpy as np

PERPLEXITY = 30.0


def principal(features: np.ndarray) -> tuple[np.ndarray, float]:
    """The first two principal components `(N, 2)` of features `(N, D)`, and the share of the variance in them."""
    centred = features - features.mean(axis=0)
    left, sizes, right = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])  # else either sign is as good
    points = (left * sizes * signs)[:, :2]
    total = float((sizes**2).sum())
    share = float((sizes[:2] ** 2).sum()) / total if total else 0.0
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1]))), share


def has_tsne() -> bool:
    """Whether openTSNE is installed."""
    return importlib.util.find_spec("openTSNE") is not None


def tsne(features: np.ndarray) -> np.ndarray:
    """t-SNE `(N, 2)` of features `(N, D)` from their principal components, the same at every call."""
    from openTSNE import TSNE

    perplexity = min(PERPLEXITY, max((len(features) - 1) / 3, 1.0))
    return np.asarray(TSNE(perplexity=perplexity, initialization="pca", random_state=0, n_jobs=1).fit(features))
