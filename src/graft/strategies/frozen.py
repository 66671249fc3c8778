"""Linear probing: the backbone is a fixed feature extractor."""

from collections.abc import Sequence

from graft.strategies.base import Phase, Strategy


class Frozen(Strategy):
    """Only the head trains; the backbone stays bit-equal, BatchNorm statistics too."""

    def phases(self, epochs: int, stages: Sequence[str]) -> list[Phase]:
        """One phase without any stage."""
        return [Phase(epochs, ())]
