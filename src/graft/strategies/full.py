"""Full fine-tuning."""

from graft.backbones.base import Backbone
from graft.strategies.base import Phase, Strategy, stage_names


class Full(Strategy):
    """Everything trains, from the pretrained weights; `rates` say how much slower than the head."""

    needs_pretrained = True  # at a tenth of the rate a random backbone looks as if transfer did harm

    def phases(self, epochs: int, backbone: Backbone) -> list[Phase]:
        """One phase with every stage."""
        return [self.phase(epochs, backbone, stage_names(backbone))]
