"""How scores change with the number of labels and with alpha, and how many labels transfer saves."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from graft.report.answer import score
from graft.report.figures import COLORS, SCRATCH, Picture, colors_of, draw, legend_below, legend_height
from graft.report.names import short_names, whole_name
from graft.report.statistics import CONFIDENCE, Estimate
from graft.report.study import Arm, Pair, Setting, Study, score_of
from graft.runs.roles import role
from graft.runs.sweeps import MIN_SEEDS

LABELS, ALPHA = "data.labels_per_class", "objective.alpha"
DRAWS = 2000  # of seeds, for the interval of the labels saved


@dataclass(frozen=True)
class Point:
    """A test score at a value of what varies."""

    x: float
    estimate: Estimate
    is_reference: bool

    @property
    def ends(self) -> tuple[float, float]:
        """Of the 95 % interval; the mean itself where there is none."""
        mean = self.estimate.mean
        return self.estimate.interval() if self.estimate.has_interval else (mean, mean)


def point(x: float, arm: Arm) -> Point:
    """An arm's."""
    return Point(x, arm.estimate()[0], arm.is_reference)


Lines = Mapping[str, list[Point]]  # by name, in the order of x


def of_labels(study: Study) -> tuple[list[Picture], list[str]]:
    """A picture of scores over labels a class, for each of the other settings, and what transfer saves there."""
    groups: dict[str, list[tuple[float, Setting]]] = {}
    others = [key for key in study.varied if role(key) == "setting" and key != LABELS]
    names = short_names([setting.arms[0].best for setting in study.settings], others)
    for setting in study.settings:
        overrides = setting.arms[0].best.overrides
        if (labels := number(overrides.get(LABELS))) is not None:
            groups.setdefault(names[whole_name(overrides, others)], []).append((labels, setting))
    pictures, sentences = list[Picture](), list[str]()
    for place, members in groups.items():
        if len(members) < 2:
            continue
        members.sort(key=lambda pair: pair[0])
        lines: dict[str, list[Point]] = {}
        for labels, setting in members:
            for arm in setting.arms:
                lines.setdefault(arm.name, []).append(point(labels, arm))
        caption = "Test score over labels a class, of the configuration that validation chose; 95 % intervals."
        title = "Scores over labels" + (f" ({place})" if place else "")
        suffix = f"_{len(pictures) + 1}" if len(groups) > 1 else ""
        pictures.append(curves(study, f"labels{suffix}", title, caption, lines, "labels a class", logarithmic=True))
        sentences += labels_saved(study, members, place)
    return pictures, sentences


def of_alpha(study: Study, setting: Setting) -> Picture | None:
    """A picture of scores over a constant alpha, a line for each of the other arms; None where it is not varied."""
    others = [key for key in study.varied if role(key) == "arm" and key != ALPHA]
    names = short_names([arm.best for arm in setting.arms], others)
    lines: dict[str, list[Point]] = {}
    for arm in setting.arms:
        if (alpha := number(arm.best.overrides.get(ALPHA))) is not None:
            name = names[whole_name(arm.best.overrides, others)]
            lines.setdefault(name or "test score", []).append(point(alpha, arm))
    lines = {name: sorted(points, key=lambda one: one.x) for name, points in lines.items() if len(points) > 1}
    if not lines:
        return None
    caption = "Test score over the source's weight in the loss (0: target alone, 1: source alone), with 95 % intervals."
    return curves(study, "alpha", "Scores over alpha", caption, lines, "alpha", logarithmic=False)


def curves(study: Study, name: str, title: str, caption: str, lines: Lines, unit: str, *, logarithmic: bool) -> Picture:
    """Lines with intervals, grey from scratch."""
    colors = {label: COLORS[place % len(COLORS)] for place, label in enumerate(lines)} | colors_of(study)

    def plot(axes: Axes) -> None:
        for label, points in lines.items():
            color = SCRATCH if all(one.is_reference for one in points) else colors[label]
            x, low, high = [one.x for one in points], *zip(*(one.ends for one in points), strict=True)
            axes.plot(x, [one.estimate.mean for one in points], "o-", color=color, label=label, linewidth=2)
            axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        if logarithmic:
            axes.set_xscale("log")
        ticks = sorted({one.x for points in lines.values() for one in points})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set(xlabel=unit, ylabel=f"test {study.metric}")
        axes.grid(alpha=0.25)
        legend_below(axes)

    return draw(name, title, caption, 6.4, 3.4 + legend_height(lines), plot)


def labels_saved(study: Study, members: Sequence[tuple[float, Setting]], place: str) -> list[str]:
    """With how many labels the best transfer is as good as training from scratch with most; empty where unknown."""
    most, last = members[-1]
    if last.reference is None or not last.transfers:
        return []
    name, scratch = last.transfers[0].name, last.reference.name
    found = {labels: {arm.name: by_seed(arm) for arm in setting.arms} for labels, setting in members}
    curve = [(labels, arms[name]) for labels, arms in found.items() if name in arms]
    goal = found[most][scratch]
    seeds = sorted(set(goal).intersection(*(set(scores) for _, scores in curve)))
    if not seeds or len(curve) < 2:
        return []
    sign = 1.0 if study.higher_is_better else -1.0
    labels = np.array([one for one, _ in curve])
    scores = sign * np.array([[values[seed] for seed in seeds] for _, values in curve])  # (budgets, seeds)
    goals = sign * np.array([goal[seed] for seed in seeds])
    needed = labels_for(float(goals.mean()), labels, scores.mean(1))
    start = f"{place}: " if place else ""
    reached = f"scratch's {score(study, sign * float(goals.mean()))} of {most:g} labels a class"
    if math.isinf(needed):
        return [f"{start}{name} does not reach {reached}."]
    interval = ""
    if len(seeds) >= MIN_SEEDS:
        random = np.random.default_rng(0)
        picks = random.integers(0, len(seeds), (DRAWS, len(seeds)))
        draws = [labels_for(float(goals[pick].mean()), labels, scores[:, pick].mean(1)) for pick in picks]
        low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="nearest")
        interval = f" [{shown(low, labels)}, {shown(high, labels)}], {len(seeds)} seeds redrawn"
    return [f"{start}{name} reaches {reached} with about {shown(needed, labels)}{interval}."]


def labels_for(goal: float, labels: np.ndarray, scores: np.ndarray) -> float:
    """The fewest labels with which a curve reaches a score, between budgets by their logarithm; infinite where none do.

    The smallest budget where that is enough.
    """
    for place, value in enumerate(scores):
        if value >= goal:
            if place == 0:
                return float(labels[0])
            before = scores[place - 1]
            share = (goal - before) / (value - before)
            return float(labels[place - 1] * (labels[place] / labels[place - 1]) ** share)
    return math.inf


def shown(needed: float, labels: np.ndarray) -> str:
    """A number of labels; the smallest that was tried is an upper bound, the largest a lower one."""
    if math.isinf(needed):
        return f"over {labels[-1]:g}"
    return f"{labels[0]:g} or fewer" if needed <= labels[0] else f"{needed:.2g}"


def by_seed(arm: Arm) -> dict[Pair, float]:
    """Test scores by split and seed."""
    return {pair: score_of(job) for pair, job in arm.jobs.items()}


def number(text: str | None) -> float | None:
    """An override's value as a number; None for another or none."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
