"""Logistic regression on features, as rules fit it for every candidate."""

import warnings

import numpy as np
import torch
from threadpoolctl import threadpool_limits

STRENGTH = 10.0  # C of scikit-learn, of rows whose mean squared norm is 1
ITERATIONS, TOLERANCE = 1000, 1e-6


def fitted_probabilities(x: np.ndarray, y: np.ndarray, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit classes `y` `(N,)` on `x` `(N, D)`; the classes `(K,)` and their probabilities `(M, K)` for rows `of`.

    Rows are centred and scaled by one number, so that one L2 penalty suits features of any size.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    classes = np.unique(y)
    if len(classes) == 1:
        return classes, np.ones((len(of), 1))
    mean = x.mean(axis=0)
    spread = np.sqrt(np.square(x - mean).sum(axis=1).mean())
    scale = 1 / spread if spread > 0 else 1.0
    model = LogisticRegression(C=STRENGTH, max_iter=ITERATIONS, tol=TOLERANCE)
    with threadpool_limits(torch.get_num_threads()), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is near enough by then
        model.fit((x - mean) * scale, y)
    return model.classes_, model.predict_proba((of - mean) * scale)
