"""A report's pictures. They are drawn once: as SVG whose text takes the page's colour, and as SVG and PNG files."""

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from graft.report.answer import shown
from graft.report.names import short_values, wrapped
from graft.report.plots import read_series, shortened, without_font_warnings
from graft.report.statistics import Calibration
from graft.report.study import Setting, Study
from graft.runs.folder import METRICS
from graft.runs.roles import role
from graft.runs.sweeps import Row

INK = "#010203"  # becomes the page's text colour
SCRATCH, GAIN, LOSS, UNCLEAR = "#8c8c8c", "#2e8b57", "#d1495b", "#3b7dd8"
COLORS = ("#3b7dd8", "#e07b39", "#2e8b57", "#9c6ade", "#d1495b", "#00979d", "#b8860b", "#c45ab3")
STYLE: Mapping[Any, Any] = {
    **{f"{name}color": INK for name in ("text.", "axes.edge", "axes.label", "xtick.", "ytick.")},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8, "font.size": 10.0},
    **{"svg.fonttype": "none", "text.parse_math": False, "font.family": "sans-serif", "legend.frameon": False},
}
CURVES_SHOWN = 8
LETTERS, BESIDE = 13, 9  # of a legend, to an inch of its width; beside each name in place of its line
ROWS_SHOWN = 24
WIDTH = 6.4  # inches of most pictures


@dataclass(frozen=True)
class Picture:
    """A drawn figure: its file name, what it shows in one sentence, and its SVG and PNG."""

    name: str
    title: str
    caption: str
    svg: str
    png: bytes

    @property
    def inline(self) -> str:
        """The SVG for a page: without the XML header, as wide as there is room, in the page's text colour."""
        return self.svg[self.svg.index("<svg") :].replace(INK, "currentColor").replace("<svg", '<svg role="img"', 1)


def draw(name: str, title: str, caption: str, width: float, height: float, plot: Any, panels: int = 1) -> Picture:
    """Draw `plot(axes)` on axes of a size in inches, or on several side by side."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}), without_font_warnings():
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
        FigureCanvasAgg(figure)
        axes = [figure.add_subplot(1, panels, number + 1, facecolor="none") for number in range(panels)]
        plot(*axes)
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        figure.savefig(png, format="png", dpi=150, facecolor="white")
    return Picture(name, title, caption, svg.getvalue(), png.getvalue())


def legend_below(axes: Axes) -> None:
    """The lines' names below the axes, where they cover nothing."""
    handles, names = axes.get_legend_handles_labels()
    figure = axes.get_figure(root=True)
    assert figure is not None
    shown, columns = legend_names(names, figure.get_figwidth())
    figure.legend(handles, shown, loc="outside lower left", ncols=columns, fontsize=9)


def legend_height(names: Collection[str], width: float = WIDTH) -> float:
    """Of the legend of a picture `width` wide, both in inches."""
    shown, columns = legend_names(names, width)
    rows = [shown[place : place + columns] for place in range(0, len(shown), columns)]
    return 0.1 + sum(0.05 + 0.15 * max(name.count("\n") + 1 for name in row) for row in rows)


def legend_names(names: Collection[str], width: float) -> tuple[list[str], int]:
    """Names over lines as long as there is room for, and how many stand side by side."""
    room = int(LETTERS * width)
    columns = max(1, min(len(names), room // (max(map(len, names), default=0) + BESIDE)))
    return [wrapped(name, room // columns - BESIDE) for name in names], columns


def gains(study: Study, setting: Setting) -> Picture | None:
    """Each arm's difference to scratch with its simultaneous interval."""
    found = setting.comparisons[:ROWS_SHOWN]
    if not found:
        return None
    factor, furthest = (100, 1.0) if study.in_points else (1, np.inf)
    unit = "points" if study.in_points else study.metric + ("" if study.higher_is_better else ", lower is better")
    names = [wrapped(one.arm.name) for one in reversed(found)]

    def plot(axes: Axes) -> None:
        axes.axvline(0, color=SCRATCH, linewidth=1)
        for place, one in enumerate(reversed(found)):
            color = {"helps": GAIN, "hurts": LOSS}.get(one.verdict, UNCLEAR)
            if one.interval:
                ends = factor * np.clip(one.interval, -furthest, furthest)  # no further than a fraction can go
                axes.plot(ends, [place, place], color=color, linewidth=2.5)
            axes.plot(factor * one.estimate.mean, place, "o", color=color, markersize=7)
            axes.annotate(
                shown(study, one.estimate.mean, sign=True),
                (factor * one.estimate.mean, place),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
        axes.set_yticks(range(len(found)), names)
        axes.set_ylim(-0.6, len(found) - 0.3)
        axes.set_xlabel(f"gain over {setting.reference_name}, {unit}")

    caption = (
        f"Gain of each strategy over {setting.reference_name} with its 95 % interval, simultaneous over all "
        "comparisons; green helps, red hurts, blue does not tell."
    )
    height = 0.9 + len(found) * row_height(names, 0.42)
    return draw("gains", f"Gain over {setting.reference_name}", caption, WIDTH, height, plot)


def row_height(names: Sequence[str], least: float) -> float:
    """Inches of each row of a picture whose names take several lines."""
    return max(least, 0.1 + 0.18 * max(name.count("\n") + 1 for name in names))


def heat_map(study: Study, setting: Setting) -> Picture | None:
    """Validation metric by arm and by the one tuned key with the most values."""
    keys = [key for key in study.varied if role(key) == "tuned"]
    values = {
        key: sorted({row.overrides[key] for row in rows_of(setting) if key in row.overrides}, key=by_size)
        for key in keys
    }
    key = max(values, key=lambda one: len(values[one]), default="")
    if not key or len(values[key]) < 2:
        return None
    arms = setting.arms[:ROWS_SHOWN]
    cells = np.array([[best_value(arm.rows, key, value) for value in values[key]] for arm in arms], dtype=float)
    if np.isnan(cells).all():
        return None
    low, high = np.nanmin(cells), np.nanmax(cells)
    names, shown = [wrapped(arm.name) for arm in arms], short_values(values[key])
    columns = [wrapped(shown[value], 12) for value in values[key]]

    def plot(axes: Axes) -> None:
        axes.imshow(cells, cmap="viridis", aspect="auto", vmin=low, vmax=high)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(arms)), names)
        axes.set_xlabel(key)
        axes.tick_params(length=0)
        for (row, column), value in np.ndenumerate(cells):
            bright = high > low and (value - low) / (high - low) > 0.6
            text = "" if np.isnan(value) else f"{value:.3f}"
            axes.text(column, row, text, ha="center", va="center", color="black" if bright else "white", fontsize=9)

    caption = (
        f"Validation metric that chose checkpoints, by strategy and {key}; mean over seeds, the best of other keys."
    )
    width = min(2.2 + 0.85 * len(columns), 9.0)
    height = 0.8 + 0.18 * max(name.count("\n") + 1 for name in columns) + len(arms) * row_height(names, 0.34)
    return draw("heat_map", f"Strategy and {key}", caption, width, height, plot)


def learning_curves(study: Study, setting: Setting) -> Picture | None:
    """The validation metric over epochs of each arm's best row: mean and range over seeds."""
    curves = []
    for arm in setting.arms[:CURVES_SHOWN]:
        series = [found for job in arm.jobs.values() if (found := validation_curve(job.path, study.metric))]
        epochs = sorted(set.intersection(*(set(one) for one in series))) if series else []
        if epochs:
            curves.append((arm, epochs, np.array([[one[epoch] for epoch in epochs] for one in series])))
    if all(len(epochs) == 1 for _, epochs, _ in curves):  # or none
        return None
    colors = colors_of(study)
    shade = 0.18 if len(curves) <= 4 else 0.08

    def plot(axes: Axes) -> None:
        for arm, epochs, values in curves:
            color = colors[arm.name]
            marker = "o" if len(epochs) == 1 else None
            axes.plot(epochs, values.mean(0), color=color, label=arm.name, marker=marker, linewidth=2)
            axes.fill_between(epochs, values.min(0), values.max(0), color=color, alpha=shade, linewidth=0)
        axes.set(xlabel="epoch", ylabel=f"validation {study.metric}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        legend_below(axes)

    caption = (
        "Validation metric over epochs, of the configuration that validation chose: mean over its jobs and their range."
    )
    height = 3.2 + legend_height([arm.name for arm, _, _ in curves])
    return draw("learning_curves", "Learning curves", caption, WIDTH, height, plot)


def reliability(found: Mapping[str, Calibration], colors: Mapping[str, str]) -> Picture:
    """Accuracy against the probability of the predicted class, by arm."""
    labels = {name: f"{name}: ECE {one.error:.3f}" for name, one in found.items()}

    def plot(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=SCRATCH, linewidth=1, linestyle="--")
        for name, one in found.items():
            axes.plot(one.confidence, one.accuracy, "o-", color=colors[name], label=labels[name], markersize=4)
        axes.set(xlabel="probability of the predicted class", ylabel="fraction that is right")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.grid(alpha=0.25)
        legend_below(axes)

    caption = "Test samples in bins of equally many; on the dashed line predictions are as often right as they say."
    height = 3.8 + legend_height(labels.values(), 5.2)
    return draw("reliability", "Calibration", caption, 5.2, height, plot)


def forgetting(study: Study, setting: Setting) -> Picture | None:
    """What each arm lost on the source against what it gained on the target."""
    points = []
    for one in setting.comparisons[:ROWS_SHOWN]:
        lost = one.arm.best.mean("metrics", "forgetting")
        if lost is not None:
            points.append((one.arm.name, lost, one.estimate.mean))
    if not points:
        return None
    factor, colors = 100 if study.in_points else 1, colors_of(study)

    def plot(axes: Axes) -> None:
        axes.axhline(0, color=SCRATCH, linewidth=1)
        axes.axvline(0, color=SCRATCH, linewidth=1)
        for name, lost, gain in points:
            axes.plot(factor * lost, factor * gain, "o", color=colors[name], markersize=8)
        axes.margins(0.15)
        label_beside(axes, [(wrapped(name), factor * lost, factor * gain) for name, lost, gain in points])
        unit = "points" if study.in_points else study.metric
        axes.set(xlabel=f"forgotten on the source, {unit}", ylabel=f"gain over {setting.reference_name}, {unit}")

    caption = "What a strategy lost on the source since pretraining against its gain on the target; means over seeds."
    height = max(3.6, 0.8 + 0.19 * sum(wrapped(name).count("\n") + 1 for name, _, _ in points))
    return draw("forgetting", "Forgetting against gain", caption, 5.2, height, plot)


def label_beside(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Names of points `(name, x, y)` beside the right edge, in the order of their y, so that none covers another."""
    low, high = axes.get_ylim()
    lines = max(name.count("\n") + 1 for name, _, _ in points)
    gap = 1 / max(len(points) - 1, 14 / lines)  # of the axes' height
    line = {"arrowstyle": "-", "color": SCRATCH, "linewidth": 0.6, "relpos": (0, 0.5)}
    above = 1 + gap
    for left, (name, x, y) in zip(reversed(range(len(points))), sorted(points, key=lambda one: -one[2]), strict=True):
        above = max(min((y - low) / (high - low), above - gap), gap * left)  # and room below for those that are left
        axes.annotate(name, (x, y), (1.03, above), textcoords="axes fraction", va="center", fontsize=9, arrowprops=line)


def confusion(matrix: Sequence[Sequence[float]], classes: Sequence[str]) -> Picture:
    """A confusion matrix, rows are true classes."""
    counts = np.asarray(matrix, dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    n = len(classes)
    names = [shortened(name, 16) for name in classes]

    def plot(axes: Axes) -> None:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        step = -(-n // 40)
        turned = 90 if max(map(len, names)) > 2 else 0
        axes.set_xticks(range(0, n, step), names[::step], rotation=turned)
        axes.set_yticks(range(0, n, step), names[::step])
        axes.set(xlabel="predicted", ylabel="true")
        if n <= 25:
            for (row, column), value in np.ndenumerate(counts):
                if value:
                    color = "white" if shares[row, column] > 0.5 else "black"
                    axes.text(column, row, f"{value:g}", ha="center", va="center", color=color, fontsize=8)

    side = float(np.clip(0.42 * n + 1.2, 3.2, 8.0))
    caption = "Test samples by true and predicted class; colour is the fraction of the true class."
    return draw("confusion", "Confusion matrix", caption, side, side, plot)


def run_curves(series: Mapping[tuple[str, str, str], Mapping[int, float]], metric: str) -> Picture | None:
    """A run's loss or metric over epochs, in training and validation."""
    found = {key: points for key, points in series.items() if key[2] == metric}
    if not found:
        return None

    def plot(axes: Axes) -> None:
        for number, ((stage, domain, _), points) in enumerate(found.items()):
            epochs, values = zip(*sorted(points.items()), strict=True)
            style = "--" if stage == "train" else "-"
            marker = "o" if len(epochs) == 1 else None
            color = COLORS[number % len(COLORS)]
            axes.plot(epochs, values, style, color=color, marker=marker, label=f"{stage} {domain}", linewidth=2)
        axes.set(xlabel="epoch", ylabel=metric)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.legend(fontsize=9)

    return draw(f"curve_{metric}", f"Learning curve: {metric}", "Mean of each epoch.", 5.6, 3.2, plot)


def colors_of(study: Study) -> dict[str, str]:
    """The same colour for an arm in the pictures of all settings; grey from scratch."""
    arms = [arm for setting in study.settings for arm in setting.arms]
    others = dict.fromkeys(arm.name for arm in arms if not arm.is_reference)
    return {arm.name: SCRATCH for arm in arms} | {name: COLORS[n % len(COLORS)] for n, name in enumerate(others)}


def validation_curve(folder: Any, metric: str) -> dict[int, float] | None:
    """The target's validation metric by epoch from 1."""
    file = folder / METRICS
    return read_series(file).get(("val", "target", metric)) if file.is_file() else None


def rows_of(setting: Setting) -> list[Row]:
    """Of all arms."""
    return [row for arm in setting.arms for row in arm.rows]


def best_value(rows: Sequence[Row], key: str, value: str) -> float:
    """The validation value of the best row with a value of a key; NaN without one."""
    found = next((row.mean("selection", "value") for row in rows if row.overrides.get(key) == value), None)
    return np.nan if found is None else found


def by_size(text: str) -> tuple[bool, float, str]:
    """Numbers in their order, then words in theirs."""
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text
