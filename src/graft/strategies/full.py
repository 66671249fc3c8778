"""Full fine-tuning."""

from collections.abc import Sequence

from graft.strategies.base import Phase, Strategy


class Full(Strategy):
    """Everything trains, from the pretrained weights; see rates=backbone_ratio for the usual smaller backbone rate."""

    def phases(self, epochs: int, stages: Sequence[str]) -> list[Phase]:
        """One phase with every stage."""
        return [Phase(epochs, tuple(stages))]
