"""Why adaptation worked or not: source and target before and after, their distance, and the recall of each class."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from graft.report.export import Table
from graft.report.features import features_pictures
from graft.report.figures import COLORS, GAIN, LOSS, ROWS_SHOWN, SCRATCH, Picture, draw
from graft.report.kept import target_predictions
from graft.report.page import Section
from graft.report.plots import read_column
from graft.report.slices import CLASS, groups_of, sliced_by
from graft.report.statistics import proxy_a_distance, wilson
from graft.runs import record
from graft.runs.folder import METRICS, RESULTS

DISTANCE, ACCURACY = "val/proxy_a_distance", "train/term/{}_discriminator_acc"
SEARCHED = 500  # jobs of a sweep at most


def section(
    folder: Path, results: Mapping[str, Any], found: Mapping[str, Any] | None, inspection: Mapping[str, Any]
) -> Section:
    """What is shown of a run with source data; `found` are its test predictions, `inspection` what the network gave."""
    other = source_only(folder, results)
    recall = recall_of(found, other, inspection) if found else None
    tables, pictures = ([recall_table(recall)], [recall_picture(recall)]) if recall else ([], [])
    if inspection.get("distances"):
        tables.append(distance_table(inspection))
    if curve := curves(folder, results, other):
        pictures.append(curve)
    if "source" in inspection.get("domains", ()):
        pictures += features_pictures(inspection)
    return Section("Source and target", tables, pictures, lines=[*left_out(results, inspection, recall)])


def left_out(results: Mapping[str, Any], inspection: Mapping[str, Any], recall: "Recall | None") -> Iterator[str]:
    """What is not shown although the network was opened again, and why."""
    if results["terms"] and not recall and "before" in inspection:
        yield (
            "Recall before adaptation is not shown: the run began without a classifier of the target's classes. A "
            "sweep that has the source alone too shows that one's: term=[],[<term>]."
        )
    if "source" not in inspection.get("domains", ["source"]):
        yield (
            "Source samples are not shown: of bn=domain_specific, the model that was kept has the target's BatchNorm "
            "statistics alone."
        )


def source_only(folder: Path, results: Mapping[str, Any]) -> Path | None:
    """The job of the run's sweep that differs from it in having no term; None where there is none with a score."""

    def settings(one: Mapping[str, Any]) -> list[str]:
        return sorted(word for word in one.get("overrides", []) if not word.startswith("term"))

    if not results["terms"] or not settings(results):
        return None
    for file in sorted(folder.parent.glob(f"*/{RESULTS}"))[:SEARCHED]:
        one = record.read(file.parent)
        if "score" in one and one["terms"] == [] and settings(one) == settings(results):
            return file.parent
    return None


# Recall


@dataclass(frozen=True)
class Recall:
    """Of each class its name, test samples `n`, and how many were right before and after; `before` says of what."""

    before: str
    rows: Sequence[tuple[str, int, int, int]]


def recall_of(found: Mapping[str, Any], other: Path | None, inspection: Mapping[str, Any]) -> Recall | None:
    """Recall before and after of the tested samples of which both are known; None without classes or without a before.

    Before is the source alone with the same settings, else the model that the run began with, where it had learned.
    """
    classes = dict(sliced_by(found)).get(CLASS)
    beside = target_predictions(other) if other else None
    if classes is None:
        return None
    if beside and other:
        right = dict(zip(beside["index"], right_in(beside), strict=True))
        before, known = f"source alone, job {other.name} of this sweep", [right.get(row) for row in found["index"]]
    elif learned := inspection.get("before"):
        before, known = learned["model"], learned["correct"]
    else:
        return None
    after, rows = right_in(found), []
    for name, members in groups_of(classes):
        kept = [row for row in members.tolist() if known[row] is not None]
        rows.append((name, len(kept), sum(bool(known[row]) for row in kept), sum(after[row] for row in kept)))
    return Recall(before, [row for row in rows if row[1]])


def right_in(found: Mapping[str, Any]) -> list[bool]:
    """Whether each test prediction is the label."""
    return [label == prediction for label, prediction in zip(found["label"], found["prediction"], strict=True)]


def recall_table(recall: Recall) -> Table:
    """A line for each class."""
    rows = []
    for name, n, before, after in recall.rows:
        intervals = ["{:.3f} to {:.3f}".format(*wilson(right, n)) for right in (before, after)]
        cells = [f"{before / n:.3f}", intervals[0], f"{after / n:.3f}", intervals[1], f"{(after - before) / n:+.3f}"]
        rows.append([name, f"{n:,}", *cells])
    header = ["class", "n", "before", "95 % interval", "after", "95 % interval", "change"]
    caption = (
        f"Before: {recall.before}. n: the target's test samples of the class. Wilson's intervals: sampling error of "
        "these samples alone; the changes are of the same samples, and nothing is adjusted for the number of classes."
    )
    return Table("recall", "Recall of each class on the target's test split", caption, header, rows)


def recall_picture(recall: Recall) -> Picture:
    """From before to after as an arrow a class; of many classes those that changed most."""
    shown = sorted(recall.rows, key=lambda row: -abs(row[3] - row[2]) / row[1])[:ROWS_SHOWN]
    rows = [row for row in recall.rows if row in shown]

    def plot(axes: Axes) -> None:
        for place, (_, n, before, after) in enumerate(rows):
            color = SCRATCH if before == after else GAIN if after > before else LOSS
            axes.plot([before / n, after / n], [place, place], color=color, linewidth=2.5, zorder=1)
            axes.scatter(before / n, place, s=46, color=SCRATCH, zorder=2)
            axes.scatter(after / n, place, s=46, color=color, zorder=3)
        axes.set_yticks(range(len(rows)), [f"{name[:16]} (n={n:,})" for name, n, _, _ in rows])
        axes.set(xlim=(-0.02, 1.02), xlabel="recall", ylim=(len(rows) - 0.5, -0.5))
        axes.grid(axis="x", alpha=0.25)

    most = f" The {ROWS_SHOWN} classes that changed most." if len(recall.rows) > len(rows) else ""
    caption = f"Grey: before ({recall.before}). Green: after, where it is higher; red, where it is lower.{most}"
    title = "Recall of each class before and after"
    return draw("recall", title, caption, 5.6, 1.0 + 0.3 * len(rows), plot)


# Distance of the domains


def distance_table(inspection: Mapping[str, Any]) -> Table:
    """Proxy A-distance before and after, with its interval."""
    rows = []
    for when, one in inspection["distances"].items():
        wrong, n = one["wrong"], one["tested"]
        low, high = (proxy_a_distance(error) for error in reversed(wilson(wrong, n)))
        name = f"before ({inspection['begin']})" if when == "before" else when
        rows.append([name, f"{proxy_a_distance(wrong / n):.2f}", f"{low:.2f} to {high:.2f}", f"{n - wrong:,} of {n:,}"])
    caption = (
        f"2 (1 - 2 error) of a linear classifier of the domains on {what_is_read(inspection)}, fitted on half of the "
        "test samples drawn, as many of each domain, and tested on the other half (Ben-David et al., 2010): 2 where it "
        "is always right, about 0 where it cannot tell. The interval is Wilson's, of these held-out samples alone."
    )
    header = ["model", "proxy A-distance", "95 % interval", "domain right"]
    return Table("domain_distance", "Distance between source and target", caption, header, rows)


def what_is_read(inspection: Mapping[str, Any]) -> str:
    """What alignment terms act on."""
    return "the bottleneck's output" if inspection["bottleneck"] else "the backbone's features"


def curves(folder: Path, results: Mapping[str, Any], other: Path | None) -> Picture | None:
    """Proxy A-distance of each validation beside that of the source alone, and the discriminators' accuracy."""
    file = folder / METRICS
    distance = {"this run": read_column(file, DISTANCE)}
    if other:
        distance["source alone"] = read_column(other / METRICS, DISTANCE)
    accuracy = {term: read_column(file, ACCURACY.format(term)) for term in results["terms"]}
    panels = [{name: one for name, one in both.items() if one} for both in (distance, accuracy)]
    titles = [one for one, panel in zip(("proxy A-distance", "discriminator's accuracy"), panels, strict=True) if panel]
    if not titles:
        return None

    def plot(*all_axes: Axes) -> None:
        for axes, title, panel in zip(all_axes, titles, [one for one in panels if one], strict=True):
            chance, top = (0.0, 2.0) if title.startswith("proxy") else (0.5, 1.0)
            for number, (name, points) in enumerate(panel.items()):
                color = SCRATCH if name == "source alone" else COLORS[number]
                axes.plot([*points], [*points.values()], "o-", color=color, markersize=4, linewidth=2, label=name)
            axes.axhline(chance, color=SCRATCH, linewidth=1, linestyle="--")
            low = min(chance, *(value for points in panel.values() for value in points.values()))
            axes.set(xlabel="epoch", ylabel=title, ylim=(low - 0.05 * top, 1.03 * top))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.25)
            if len(panel) > 1 or title.startswith("disc"):
                axes.legend(fontsize=9)

    caption = (
        "Left: how well a linear classifier, fitted at every validation, tells source from target. Right: how often "
        "the term's own discriminator is right on training batches. Dashed: neither can tell the domains."
    )
    if len(titles) == 1:
        caption = f"{titles[0][0].upper()}{titles[0][1:]}; dashed: the domains cannot be told apart."
    return draw(
        "domains_over_training", "The domains over training", caption, 3.4 * len(titles), 3.2, plot, len(titles)
    )
