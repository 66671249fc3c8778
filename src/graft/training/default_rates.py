"""`optimizer.lr=default`: the rate that did best by validation for a modality and for what trains.

The rates are the head's, for Adam and AdamW; `rates` says how much slower a backbone learns. docs/sweeps.md names the
data that they were chosen on and shows them on others: python -m benchmarks.default_rates
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Trained = Literal["head", "everything", "from scratch"]

ELSEWHERE = 1.0e-3  # what conf/optimizer has: for what was not measured
RATES: Mapping[tuple[str, Trained], float] = {
    ("audio", "head"): 1.0e-1,
    ("image", "everything"): 1.0e-2,
    ("table", "from scratch"): 1.0e-2,
    ("text", "head"): 1.0e-2,
}


@dataclass(frozen=True)
class DefaultRate:
    """A rate, and for what it is the default."""

    value: float
    kind: str

    def describe(self) -> dict[str, Any]:
        """For results.json."""
        return {"value": self.value, "default": self.kind}


def default_rate(modality: str, trained: Trained) -> DefaultRate:
    """The rate for data of a modality of which the head, everything, or a new network trains."""
    rate = RATES.get((modality, trained))
    if rate is None:
        return DefaultRate(ELSEWHERE, f"{modality}, {trained}: nothing was measured")
    return DefaultRate(rate, f"{modality}, {trained}")
