"""How a figure is taken and what is said of it: interleaved repeats, medians, intervals, growth."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Taken = TypeVar("Taken")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Cost:
    """Of some work: wall time, and CPU time of its process, both in seconds."""

    seconds: float
    cpu_s: float


def cost(work: Callable[[], object]) -> Cost:
    """Of one call."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - start, time.process_time() - cpu)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleave(works: Mapping[str, Callable[[], Taken]], repeats: int) -> dict[str, list[Taken]]:
    """What each work returns in every round, in which all take their turn, so that a slow minute hits all alike.

    Every other round goes backwards: whoever follows a work that leaves something behind is not always the same.
    """
    values: dict[str, list[Taken]] = {name: [] for name in works}
    for number in range(repeats):
        for name in list(works)[:: -1 if number % 2 else 1]:
            values[name].append(works[name]())
    return values


def ratios(ours: Sequence[float], other: Sequence[float]) -> list[float]:
    """Our figure over the other's, round by round: what slows a round down slows both and cancels."""
    return [a / b for a, b in zip(ours, other, strict=True)]


@dataclass(frozen=True)
class Summary:
    """What a table says of some values; no interval where there are too few of them."""

    median: float
    interval: tuple[float, float] | None
    minimum: float
    maximum: float
    count: int


def summarise(values: Sequence[float]) -> Summary:
    """Median, its interval and the range."""
    return Summary(statistics.median(values), median_interval(values), min(values), max(values), len(values))


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """The narrowest pair of ordered values that covers the median with that confidence, whatever the distribution.

    Each value falls below the median with probability 1/2, so that the k-th smallest and the k-th largest miss it with
    twice the chance of fewer than k heads in n tosses. None below 6 values, where even the range is not enough.
    """
    ordered, count = sorted(values), len(values)
    missed, rank = 0.0, 0
    while True:
        missed += 2 * math.comb(count, rank) / 2**count
        if missed > 1 - confidence:
            break
        rank += 1
    return (ordered[rank - 1], ordered[count - rank]) if rank else None


def growth_exponent(sizes: Sequence[float], figures: Sequence[float]) -> float:
    """Slope of log(figure) over log(size) by least squares: 1 is linear, 2 quadratic."""
    return statistics.linear_regression([math.log(s) for s in sizes], [math.log(f) for f in figures]).slope
