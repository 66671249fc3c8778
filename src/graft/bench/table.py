"""The table and the picture of a bench: score, latency, memory and size, and who is on the Pareto front."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from graft.bench.measure import Costs, Latency
from graft.bench.subjects import Subject
from graft.bench.worker import BATCHES, LENGTH
from graft.report.export import Table
from graft.tasks.base import LOWER_IS_BETTER

Row = tuple[Subject, Costs]


def pareto(rows: Sequence[Row]) -> list[bool]:
    """Whether no other network is at least as good, as fast (one core, batch of 1) and as small, and better in one.

    False without a score.
    """
    points = [None if subject.score is None else point(subject, costs) for subject, costs in rows]
    others = [one for one in points if one is not None]
    return [one is not None and not any(dominates(other, one) for other in others) for one in points]


def point(subject: Subject, costs: Costs) -> tuple[float, float, float]:
    """Score, milliseconds and MB, each better where it is smaller."""
    assert subject.score is not None
    sign = 1 if subject.score["metric"] in LOWER_IS_BETTER else -1
    return sign * subject.score["value"], costs.latency[1, 1].median, subject.size_mb


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether no value is larger and one is smaller."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def table(rows: Sequence[Row]) -> Table:
    """A row for each network, in the order of latency."""
    settings = [*rows[0][1].latency]
    header = ["network", "computed by", "test score", "n"]
    header += [f"ms, {threads} {'core' if threads == 1 else 'cores'}, batch {size}" for threads, size in settings]
    header += ["peak MB", "MB on disk", "Pareto"]
    found = []
    front = dict(zip((subject.place for subject, _ in rows), pareto(rows), strict=True))
    for subject, costs in sorted(rows, key=lambda row: row[1].latency[1, BATCHES[0]].median):
        memory = "" if costs.memory_mb is None else f"{costs.memory_mb:,.0f}"
        found.append(
            [
                subject.name,
                subject.kind,
                score_cell(subject),
                f"{subject.score['n']:,}" if subject.score else "",
                *(latency_cell(costs.latency[setting]) for setting in settings),
                memory,
                f"{subject.size_mb:.2f}",
                "yes" if front[subject.place] else "",
            ]
        )
    caption = (
        "Milliseconds are medians, with what 5 and 95 % of the calls stay below; the networks took turns. Scores are "
        "of the runs' test samples, with Wilson's 95 % interval. Texts and sequences have "
        f"{LENGTH} steps. Pareto: no other row scores as well, answers as fast and is as small."
    )
    return Table("bench", "What predicting costs", caption, header, found, numbers=2)


def score_cell(subject: Subject) -> str:
    """A test score with its interval."""
    score = subject.score
    if score is None:
        return ""
    interval = " ({:.3f} to {:.3f})".format(*score["interval"]) if score["interval"] else ""
    return f"{score['metric']} {score['value']:.4f}{interval}"


def latency_cell(latency: Latency) -> str:
    """Median and range, such as `4.10 (3.98 to 4.52)`."""
    return f"{latency.median:.2f} ({latency.low:.2f} to {latency.high:.2f})"


def picture(rows: Sequence[Row], file: Path) -> None:
    """SVG of scores over latency on one core; a mark's area is the size on disk, those on the front are filled."""
    scored = [(row, on_front) for row, on_front in zip(rows, pareto(rows), strict=True) if row[0].score is not None]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    largest = max((subject.size_mb for (subject, _), _ in scored), default=1.0)
    scored.sort(key=lambda one: one[0][1].latency[1, 1].median)
    for number, ((subject, costs), on_front) in enumerate(scored):
        score, latency = subject.score, costs.latency[1, 1]
        assert score is not None
        low, high = score["interval"] or (score["value"], score["value"])
        x, y = latency.median, score["value"]
        axes.errorbar(
            [x],
            [y],
            yerr=[[max(y - low, 0)], [max(high - y, 0)]],
            xerr=[[x - latency.low], [latency.high - x]],
            fmt="none",
            ecolor="0.7",
            zorder=1,
        )
        colour = "tab:green" if on_front else "white"
        axes.scatter([x], [y], 30 + 300 * subject.size_mb / largest, colour, edgecolors="tab:green", zorder=2)
        label = f"{subject.name} ({subject.size_mb:.1f} MB)"
        beside = (8, 8 if number % 2 else -15)  # above or below: neighbours in latency are often neighbours in score
        axes.annotate(label, (x, y), beside, textcoords="offset points", fontsize=8, zorder=3)
    axes.set_xscale("log")
    axes.margins(x=0.3)
    axes.set(xlabel="milliseconds, one core, batch of 1", ylabel=f"test {scored[0][0][0].score['metric']}")  # type: ignore[index]
    figure.savefig(file, format="svg")
