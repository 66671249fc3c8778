"""A learning rate that falls from stage to stage towards the input (ELECTRA, ICLR 2020; BEiT, ICLR 2022)."""

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Interval


class LayerDecay:
    """A stage learns at `decay` times the rate of what follows it; the head has the full rate."""

    def __init__(self, decay: Annotated[float, Interval(gt=0, le=1)] = 0.75) -> None:
        self.decay = decay

    def multipliers(self, stages: Sequence[str]) -> dict[str, float]:
        """Learning rate of each backbone stage over the head's."""
        return {stage: self.decay ** (len(stages) - index) for index, stage in enumerate(stages)}
