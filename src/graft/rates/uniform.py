"""One learning rate for every part."""

from collections.abc import Sequence


class Uniform:
    """Backbone and head learn at the same rate."""

    def multipliers(self, stages: Sequence[str]) -> dict[str, float]:
        """Learning rate of each backbone stage over the head's."""
        return dict.fromkeys(stages, 1.0)
