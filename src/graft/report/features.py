"""Features of a run in the plane, before and after training, by class and by domain."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from graft.report.figures import COLORS, SCRATCH, UNCLEAR, Picture, draw

MAX_COLORS = len(COLORS) + 2  # classes, of which more are drawn by a scale
SHORT = 14  # characters of a class's name
DOMAINS = {"source": COLORS[1], "target": COLORS[0]}
MARKERS: Mapping[str, Mapping[str, Any]] = {
    "source": {"marker": "x", "s": 14, "linewidths": 1.0, "rasterized": True},
    "target": {"marker": "o", "s": 10, "linewidths": 0, "rasterized": True},
}


def features_pictures(found: Mapping[str, Any]) -> list[Picture]:
    """By method of projection: coloured by class, and where there is a source by domain before that."""
    methods = dict.fromkeys(one["method"] for one in found["projections"])
    colourings = ("domain", "class") if "source" in found["domains"] else ("class",)
    return [features_picture(method, found, by) for method in methods for by in colourings]


def features_picture(method: str, found: Mapping[str, Any], by: str) -> Picture:
    """Features before and after training, coloured by class or by domain; crosses are source samples."""
    panels = [one for one in found["projections"] if one["method"] == method]
    domains = np.array(found["domains"])
    present = [domain for domain in ("source", "target") if domain in found["domains"]]
    classes = sorted({label for labels in found["labels"].values() for label in labels}, key=by_number)

    def plot(*axes: Axes) -> None:
        for panel, one in zip(axes, panels, strict=True):
            points = np.array(one["points"])
            for domain in present:
                own, options = points[domains == domain], MARKERS[domain]
                if by == "domain":
                    panel.scatter(*own.T, color=DOMAINS[domain], alpha=0.7, label=domain, **options)
                else:
                    by_class(panel, own, found["labels"].get(domain, []), classes, named=domain == "target", **options)
            share = "" if one["share"] is None else f" ({100 * one['share']:.0f} % of the variance)"
            panel.set_title(f"{one['when']}{share}", fontsize=10)
            panel.set(xticks=[], yticks=[])
        handles, names = axes[-1].get_legend_handles_labels()
        if handles:
            axes[0].figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize=8, markerscale=1.5)

    what = "bottleneck's output" if found["bottleneck"] else "features"
    when = f"before ({found['begin']}) and after" if len(panels) > 1 else "after training"
    marks = ". Dots are target samples, crosses source samples." if "source" in present else "."
    caption = f"{method} of the {what} of test samples, by {by}, {when}{marks}"
    name = f"features_{method.lower().replace('-', '')}{'_by_domain' if by == 'domain' else ''}"
    title = f"{what[0].upper()}{what[1:]} by {by}: {method}"
    return draw(name, title, caption, 3.4 * len(panels), 3.9, plot, panels=len(panels))


def by_class(
    panel: Axes, points: np.ndarray, labels: Sequence[str], classes: Sequence[str], *, named: bool, **options: Any
) -> None:
    """Points `(N, 2)` coloured by class, of many classes or numbers by a scale; of unknown ones all the same."""
    if not labels:
        panel.scatter(*points.T, color=UNCLEAR if named else SCRATCH, alpha=0.5, **options)
    elif len(classes) <= MAX_COLORS:
        for name, color in zip(classes, (*COLORS, "#8fa31e", "#a0522d"), strict=False):
            chosen = np.array([label == name for label in labels])
            panel.scatter(*points[chosen].T, color=color, label=name[:SHORT] if named else None, **options)
    else:
        ranks = {name: rank for rank, name in enumerate(classes)}
        x, y = points.T
        panel.scatter(x, y, c=[ranks[label] for label in labels], cmap="viridis", **options)


def by_number(text: str) -> tuple[bool, float, str]:
    """Numbers by their value, then words."""
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text
