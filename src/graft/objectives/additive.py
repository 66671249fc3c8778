"""One domain's loss added to the other's with a weight."""

from graft.config.types import NonNegative
from graft.objectives.base import Objective


class AdditiveTransfer(Objective):
    """`L = L_source + weight * L_target` over the backbone and both heads (full transfer)."""

    def __init__(self, weight: NonNegative = 1.0) -> None:
        self.weight = weight

    def weights(self, progress: float) -> dict[str, float]:
        """One for the source, `weight` for the target."""
        return {"source": 1.0, "target": self.weight}


class AdditiveRetraining(Objective):
    """`L = L_target + weight * L_source`: the backbone moves, the source head stays as pretrained."""

    fixed_heads = ("source",)

    def __init__(self, weight: NonNegative = 1.0) -> None:
        self.weight = weight

    def weights(self, progress: float) -> dict[str, float]:
        """One for the target, `weight` for the source."""
        return {"source": self.weight, "target": 1.0}
