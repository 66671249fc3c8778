"""A baseline that looks at no sample: the number of parameters."""

from collections.abc import Sequence
from typing import ClassVar

from graft.transferability.base import Evidence, Kind, Measure


class ParameterCount(Measure):
    """In millions."""

    name, title = "parameters", "parameters (M)"
    paper = "a baseline: the largest one is best"
    means = (
        "how large the backbone is; it looks at no sample, and a measure that orders no better is not worth its time"
    )
    not_for = "anything but comparison with the others"
    kinds: ClassVar[Sequence[Kind]] = ("classes", "labels", "numbers")

    def value(self, evidence: Evidence) -> float:
        """Millions."""
        return evidence.parameters / 1e6

    def resampled(self, evidence: Evidence, resamples: int) -> list[float]:
        """None: it depends on no sample."""
        return []
