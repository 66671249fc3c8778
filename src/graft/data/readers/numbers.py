"""Numbers in texts, as networks compute with them."""

import numpy as np

LARGEST = float(np.finfo(np.float32).max)  # of the numbers that networks compute with


def number(text: str | None) -> float:
    """The number in a text; NaN where it holds none."""
    try:
        return float("nan" if text is None or "_" in text else text)
    except ValueError:
        return float("nan")
