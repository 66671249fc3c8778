"""Numbers in texts, as networks compute with them."""

import numpy as np

LARGEST = float(np.finfo(np.float32).max)  # of the numbers that networks compute with
BEGINNING = 1000  # numbers that are looked at before all are


def number(text: str | None) -> float:
    """The number in a text; NaN where it holds none."""
    try:
        return float("nan" if text is None or "_" in text else text)
    except ValueError:
        return float("nan")


def known_numbers(numbers: np.ndarray) -> np.ndarray:
    """Those of `(N,)` that are not missing, which are not copied where all are known."""
    missing = np.isnan(numbers)
    return numbers[~missing] if missing.any() else np.ascontiguousarray(numbers)


def are_whole(numbers: np.ndarray) -> bool:
    """Whether all numbers are whole, and none is missing; a column of others nearly always begins with some."""
    return all(bool((some == np.round(some)).all()) for some in (numbers[:BEGINNING], numbers))
