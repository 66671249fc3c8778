"""Discriminative fine-tuning: each stage learns slower than the one above (ULMFiT, ACL 2018)."""

from typing import Annotated

from annotated_types import Ge

from graft.rates.layer_decay import LayerDecay


class Discriminative(LayerDecay):
    """A stage learns at 1 / `factor` of the rate of what follows it."""

    def __init__(self, factor: Annotated[float, Ge(1)] = 2.6) -> None:
        super().__init__(1 / factor)
