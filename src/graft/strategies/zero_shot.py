"""No label at all: the network as it was pretrained, and a head that knows the classes by their names."""

from collections.abc import Callable
from typing import Any

from graft.backbones.base import Backbone
from graft.strategies.base import Phase, Strategy


class ZeroShot(Strategy):
    """Nothing trains, and nothing is chosen: the first row of a table over budgets of labels."""

    needs_pretrained = True
    freezes = True
    trains_backbone = False
    trains_nothing = True

    def __init__(self) -> None:
        super().__init__(train_bn=None)

    def phases(self, epochs: int, backbone: Backbone) -> list[Phase]:
        """One phase without any parameter."""
        return [self.phase(epochs, backbone, (), heads=False)]

    def settings(self, samples: int, image_side: Callable[[], int | None]) -> dict[str, Any]:
        """Nothing is gone through, and nothing is changed at random."""
        return {"training.epochs": 1, "data.augment": "none"}
