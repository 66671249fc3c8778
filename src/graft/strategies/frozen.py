"""Linear probing: the backbone is a fixed feature extractor."""

from graft.backbones.base import Backbone
from graft.strategies.base import Phase, Strategy


class Frozen(Strategy):
    """Only the head trains; the backbone stays bit-equal, BatchNorm statistics too unless `train_bn` says otherwise."""

    freezes = True
    trains_backbone = False

    def phases(self, epochs: int, backbone: Backbone) -> list[Phase]:
        """One phase without any stage."""
        return [self.phase(epochs, backbone, ())]
