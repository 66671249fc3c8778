"""Which place each strategy of a setting has, and between which places it may be."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from graft.report.looks import level
from graft.report.study import Arm, Setting, compare


def rank_intervals(setting: Setting) -> dict[str, tuple[int, int]]:
    """The best and the worst place of each arm that 95 % simultaneous intervals of all pairs leave open.

    An arm that is above k of K arms and below l of them, beyond these intervals, is between places l + 1 and K - k
    (Mogstad et al., Inference for ranks, 2024). Empty with fewer than two arms, or where no pair has an interval.
    """
    pairs = list(combinations(setting.arms, 2))
    found = [ordered(first, second, level(look_of(setting)), len(pairs)) for first, second in pairs]
    decided = [order for order in found if order is not None]
    if not decided:
        return {}
    return open_places(
        [arm.name for arm in setting.arms], [(better.name, worse.name) for order in decided for better, worse in order]
    )


def open_places(names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> dict[str, tuple[int, int]]:
    """The best and the worst place of each name that pairs of a better and a worse one leave open."""
    above, below = Counter(better for better, _ in pairs), Counter(worse for _, worse in pairs)
    return {name: (below[name] + 1, len(names) - above[name]) for name in names}


def ordered(first: Arm, second: Arm, alpha: float, comparisons: int) -> Sequence[tuple[Arm, Arm]] | None:
    """The pair with the better one first, empty where the interval holds 0; None without an interval."""
    found = compare(first, second)
    if found is None or not found.estimate.has_interval:
        return None
    low, high = found.estimate.interval(1 - alpha, comparisons)
    return [(first, second)] if low > 0 else [(second, first)] if high < 0 else []


def look_of(setting: Setting) -> int:
    """Which look at the setting's comparisons this is."""
    return setting.comparisons[0].look if setting.comparisons else 1
