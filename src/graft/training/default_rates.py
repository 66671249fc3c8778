"""`optimizer.lr=default`: the rate that did best by validation for a family of backbones and for what trains.

The rates are the head's, for Adam and AdamW; `rates` says how much slower a backbone learns. docs/sweeps.md names the
data that they were chosen on and shows them on others: python -m benchmarks.default_rates, and the sweeps of
python -m benchmarks.race_regret
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Trained = Literal["head", "everything", "layer by layer", "from scratch"]  # the third is rates=layer_decay

ELSEWHERE = 1.0e-3  # what conf/optimizer has: for what was not measured
# By what builds the backbone, which says its modality too: the middle of the rates that validate within a point of the
# best one, of two the lower.
RATES: Mapping[tuple[str, Trained], float] = {
    ("SpeakerLSTM", "head"): 1.0e-1,
    ("SpeakerLSTM", "everything"): 5.0e-3,
    ("SpeakerLSTM", "layer by layer"): 1.0e-3,
    ("HuggingFaceBackbone", "head"): 1.0e-2,
    ("HuggingFaceBackbone", "everything"): 1.0e-3,
    ("HuggingFaceBackbone", "layer by layer"): 2.0e-4,
    ("TimmBackbone", "head"): 3.0e-3,
    ("TimmBackbone", "everything"): 5.0e-3,
    ("TimmBackbone", "layer by layer"): 2.0e-4,
    ("lenet", "everything"): 1.0e-2,
    ("lenet", "layer by layer"): 1.0e-3,
    ("SequenceBackbone", "from scratch"): 3.0e-2,
    ("mlp", "from scratch"): 1.0e-2,
}


@dataclass(frozen=True)
class DefaultRate:
    """A rate, and for what it is the default."""

    value: float
    kind: str

    def describe(self) -> dict[str, Any]:
        """For results.json."""
        return {"value": self.value, "default": self.kind}


def default_rate(backbone: str, trained: Trained) -> DefaultRate:
    """The rate for the backbone that a `_target_` builds, of which the head, everything, or a new network trains."""
    family = backbone.rpartition(".")[2]
    rate = RATES.get((family, trained))
    if rate is None:
        return DefaultRate(ELSEWHERE, f"{family}, {trained}: nothing was measured")
    return DefaultRate(rate, f"{family}, {trained}")
