"""What a strategy is: phases of training, each with the parts that train in it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs with one set of trainable backbone stages; the head always trains."""

    epochs: int
    stages: tuple[str, ...]  # trainable stages of the backbone; the others stay in eval mode
    lr_factor: float = 1.0  # learning rate in this phase over the optimizer's


class Strategy:
    """Which parameters train and when. A phase has its own learning-rate schedule."""

    pretrained = True  # False: starts from random weights whatever backbone.weights says

    def phases(self, epochs: int, stages: Sequence[str]) -> list[Phase]:
        """Phases that fill `epochs`; `stages` are the backbone's, from input to output."""
        raise NotImplementedError
