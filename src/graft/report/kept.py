"""Test predictions that runs kept, as reports read them."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from graft.model import predictions
from graft.runs.folder import PREDICTIONS


def target_predictions(folder: Path) -> dict[str, Any] | None:
    """A run's predictions of the target's test split, None where they were not kept."""
    file = folder / PREDICTIONS
    return predictions_in(file, file.stat().st_mtime_ns) if file.is_file() else None


@functools.lru_cache(maxsize=256)
def predictions_in(file: Path, changed: int) -> dict[str, Any] | None:
    """What a file says of the target as it was written last; probabilities as an array `(m, K)`."""
    try:
        found = predictions.read(file).get("target")
    except (OSError, ValueError, KeyError, TypeError):  # cut short, or not as Graft writes it: as if not kept
        return None
    if found and "probabilities" in found and found["classes"]:
        found["probabilities"] = np.array(found["probabilities"], dtype=np.float32)
    return found
