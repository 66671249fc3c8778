"""How time grows, as a picture."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.row import Outcome

PREFIX = "growth_"


def draw_growth(outcomes: Sequence[Outcome], path: Path) -> bool:
    """Draw time over its value at 1x against size, both logarithmic, beside the linear line; False without growth."""
    grown = [o for o in outcomes if o.row.name.startswith(PREFIX) and o.measured]
    if not grown:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    factors = grown[0].measured.details["factors"]
    axes.plot(factors, factors, color="grey", linestyle="--", label="linear")
    for outcome in grown:
        times = [statistics.median(repeats) for repeats in outcome.measured.details["seconds"]]
        label = f"{outcome.row.name.removeprefix(PREFIX)}, exponent {outcome.summary.median:.2f}"
        axes.plot(factors, [seconds / times[0] for seconds in times], marker="o", label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(factors, [f"{factor}x" for factor in factors])
    axes.set_xlabel("size")
    axes.set_ylabel("time over time at 1x")
    axes.legend()
    figure.savefig(path, dpi=150)
    return True
