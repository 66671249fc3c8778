"""What became of each class of a head that has grown, as tables and cards show it."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

MEANING = (
    "Before: the network of head.weights, among its classes; after: among all; forgotten: before less after. Means "
    "count each class once"
)


class ClassRow(NamedTuple):
    """A class; shares of its test samples that are right, None where there is no sample or no old network."""

    name: str
    kind: str  # old or new
    samples: int
    before: float | None
    after: float | None

    @property
    def forgotten(self) -> float | None:
        """What it has lost."""
        return None if self.before is None or self.after is None else self.before - self.after


def rows(growth: Mapping[str, Any]) -> Iterator[ClassRow]:
    """The classes of the `growth` of results.json, the old ones first."""
    columns = (growth[key] for key in ("classes", "samples", "before", "after"))
    for number, (name, samples, before, after) in enumerate(zip(*columns, strict=True)):
        yield ClassRow(name, "old" if number < growth["old"] else "new", samples, before, after)


def samples_of(growth: Mapping[str, Any], metric: str) -> int:
    """Of how many test samples a metric of the old classes, the new ones, or both is."""
    old, samples = growth["old"], growth["samples"]
    return sum(samples[:old] if metric.startswith("old") else samples[old:] if metric.startswith("new") else samples)
