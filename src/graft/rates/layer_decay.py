"""A learning rate that falls from stage to stage towards the input (ELECTRA, ICLR 2020; BEiT, ICLR 2022)."""

from collections.abc import Sequence
from typing import Annotated, Literal

from annotated_types import Interval


class LayerDecay:
    """A stage, or block, learns at `decay` times the rate of what follows it; the head has the full rate."""

    def __init__(
        self, decay: Annotated[float, Interval(gt=0, le=1)] = 0.75, unit: Literal["stage", "block"] = "stage"
    ) -> None:
        self.decay = decay
        self.unit = unit

    def multipliers(self, stages: Sequence[str]) -> dict[str, float]:
        """Learning rate of each backbone stage over the head's."""
        return {stage: self.decay ** (len(stages) - index) for index, stage in enumerate(stages)}

    def of_block(self, depth: int) -> float:
        """Learning rate of a block over the head's, which is `depth` blocks further."""
        return self.decay**depth
