"""The classifier stays and what feeds it moves: SHOT's hypothesis transfer (Liang et al., ICML 2020)."""

from graft.backbones.base import Backbone
from graft.strategies.base import Phase, Strategy, stage_names


class FixedHead(Strategy):
    """The backbone trains, and the head's bottleneck where there is one; the classifier stays as it was loaded."""

    needs_pretrained = True
    keeps_classifier = True

    def phases(self, epochs: int, backbone: Backbone) -> list[Phase]:
        """One phase with every stage."""
        return [self.phase(epochs, backbone, stage_names(backbone), classifiers=False)]
