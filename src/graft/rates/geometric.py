"""Rates spread evenly on a log scale from the first stage to the head (fastai's `slice(lr / 100, lr)`)."""

from collections.abc import Sequence

from graft.config.types import NonNegative


class Geometric:
    """The first stage learns at `first_ratio` of the head's rate, each further one at the same factor more."""

    def __init__(self, first_ratio: NonNegative = 0.01) -> None:
        self.first_ratio = first_ratio

    def multipliers(self, stages: Sequence[str]) -> dict[str, float]:
        """Learning rate of each backbone stage over the head's."""
        return {stage: self.first_ratio ** (1 - index / len(stages)) for index, stage in enumerate(stages)}
