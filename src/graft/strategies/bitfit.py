"""BitFit: only biases train (Ben Zaken et al., ACL 2022)."""

from graft.backbones.base import Backbone
from graft.errors import GraftError
from graft.strategies.base import Phase, Strategy, stage_names


class BitFit(Strategy):
    """The head and every bias of the backbone train, among them the shifts of norms."""

    freezes = True

    def phases(self, epochs: int, backbone: Backbone) -> list[Phase]:
        """One phase with all biases; GraftError where the backbone has none."""
        biases = [name for name, _ in backbone.named_parameters() if name.endswith("bias")]
        if not biases:
            raise GraftError(f"strategy=bitfit: {backbone.name} has no biases. Use strategy=norm_only or lora.")
        return [self.phase(epochs, backbone, stage_names(backbone), biases)]
