"""Temperature scaling (Guo et al., 2017): one number, fitted on validation, that makes probabilities calibrated."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LOWEST, HIGHEST = 0.05, 20.0  # a network without a mistake would have its temperature go to 0


def fit(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature at which probabilities `(m, K)` give labels `(m,)` the smallest mean -log p."""
    from scipy import optimize  # a tenth of a second, which predicting does not need

    logits = logits_of(probabilities)
    found = optimize.minimize_scalar(
        lambda log_t: likelihood_loss(logits / np.exp(log_t), labels),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities `(m, K)` of the logits divided by a temperature; the most probable class stays the same."""
    return np.exp(log_softmax(logits_of(probabilities) / temperature))


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """Logits `(m, K)` but for a constant a row, which no softmax sees; what float32 rounds to 0 gets its smallest."""
    float32 = np.finfo(np.float32)
    smallest = float32.epsneg if probabilities.shape[1] == 2 else float32.tiny  # of two, one is 1 minus the other
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), smallest))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities `(m, K)`."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def likelihood_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean -log p of labels `(m,)`."""
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


def describe(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """What results.json holds of a fit on the validation split: the temperature, and the loss before and after it."""
    temperature = fit(probabilities, labels)
    losses = [likelihood_loss(logits_of(probabilities) / divisor, labels) for divisor in (1.0, temperature)]
    return {"value": temperature, "labels": len(labels), "val_loss": losses[0], "val_loss_after": losses[1]}


def temperature_of(results: Mapping[str, Any]) -> float | None:
    """A run's temperature; None where none was fitted."""
    found = results.get("temperature")
    return found["value"] if found else None


def is_at_end(value: float) -> bool:
    """Whether a temperature is where the search ends, as of a network without a mistake: it calibrates nothing."""
    return value < 1.01 * LOWEST or value > 0.99 * HIGHEST


def temperature_cell(values: Sequence[float]) -> str:
    """The mean over seeds, with a mark where one is at the end of what was searched."""
    at_end = any(map(is_at_end, values))
    return f"{np.mean(values):.3g}{' (end of the search)' if at_end else ''}"
