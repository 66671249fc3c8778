"""Pictures for the run folder. Figures are drawn without pyplot, so that nothing stays in memory over many jobs."""

import csv
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from graft.runs.folder import CURVES, METRICS

if TYPE_CHECKING:
    from graft.training.tuning import Curve

MAX_NUMBERS = 25  # classes up to which the cells hold their counts
MAX_LABELS = 60  # class names along an axis
MAX_LETTERS = 24  # of a class name
COLORS = {"target": "tab:blue", "source": "tab:orange"}
STYLES = {"train": ":", "val": "-"}


def confusion_matrix(matrix: Sequence[Sequence[float]], classes: Sequence[str], path: Path) -> None:
    """PNG of a confusion matrix `(K, K)`, rows are true classes; colour is the fraction of the row, numbers counts."""
    counts = np.asarray(matrix)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    n = len(classes)
    classes = [shortened(name, MAX_LETTERS) for name in classes]
    longest = max(map(len, classes))
    side = float(np.clip(0.45 * n, 3.5, 14.0)) + min(0.08 * longest, 2.0)
    figure = Figure(figsize=(side + 0.9, side), layout="tight")
    axes = figure.add_subplot()
    image = axes.imshow(fractions, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, ax=axes, shrink=0.8, label="fraction of the true class")
    shown = np.arange(0, n, -(-n // MAX_LABELS))
    names = [classes[int(i)] for i in shown]
    axes.set_xticks(shown, names, rotation=0 if longest <= 2 else 90)
    axes.set_yticks(shown, names)
    axes.set(xlabel="predicted", ylabel="true")
    if n <= MAX_NUMBERS:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if fractions[row, column] > 0.5 else "black"
                axes.text(column, row, f"{count:g}", ha="center", va="center", color=color, fontsize=8)
    _save(figure, path)


def curves(metrics_csv: Path, path: Path) -> None:
    """PNG of loss and main metric over epochs, for training and validation and each domain.

    Draws nothing where there is no such file or column.
    """
    series = read_series(metrics_csv) if Path(metrics_csv).exists() else {}
    metrics = list(dict.fromkeys(metric for _, _, metric in series))
    panels = [m for m in ("loss", *(m for m in metrics if m != "loss"))][:2]
    panels = [panel for panel in panels if panel in metrics]
    if not panels:
        return
    figure = Figure(figsize=(4.5 * len(panels), 3.2), layout="tight")
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), index + 1)
        for (stage, domain, metric), points in series.items():
            if metric == panel:
                epochs, values = zip(*sorted(points.items()), strict=True)
                marker = "o" if len(epochs) == 1 else None
                style: dict[str, Any] = {"color": COLORS.get(domain), "linestyle": STYLES[stage], "marker": marker}
                axes.plot(epochs, values, label=f"{stage} {domain}", **style)
        axes.set(xlabel="epoch", ylabel=panel)
        locator = axes.xaxis.get_major_locator()
        assert isinstance(locator, MaxNLocator)  # a linear axis has one
        locator.set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path)


def range_test(curve: "Curve", suggestions: Mapping[str, float], path: Path) -> None:
    """PNG of a learning-rate range test: raw and smoothed loss over the rate, and what the rules suggest."""
    smoothed = np.asarray(curve.smoothed)
    figure = Figure(figsize=(6.4, 4.0), layout="tight")
    axes = figure.add_subplot()
    axes.plot(curve.rates, curve.losses, color="0.75", linewidth=1, label="loss")
    axes.plot(curve.rates, smoothed, color="tab:blue", label="smoothed")
    for number, (name, rate) in enumerate(suggestions.items(), start=1):
        loss = np.interp(np.log(rate), np.log(curve.rates), smoothed)
        axes.plot(rate, loss, "o", color=f"C{number}", label=f"{name}: {rate:g}")
        axes.axvline(rate, color=f"C{number}", linestyle=":", linewidth=1)
    low, high = min(curve.losses), smoothed[: smoothed.argmin() + 1].max()
    margin = max(high - low, 1e-3 * abs(high))
    axes.set_ylim(low - 0.1 * margin, high + 0.5 * margin)  # how far it diverged is not the question
    axes.set(xscale="log", xlabel="learning rate of the head", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def write_all(results: Mapping[str, Any], folder: Path) -> None:
    """Confusion matrices and training curves as pictures in the run folder."""
    for name, confusion in results.get("confusion", {}).items():
        confusion_matrix(confusion["matrix"], confusion["classes"], folder / f"confusion_{name.replace('/', '_')}.png")
    curves(folder / METRICS, folder / CURVES)


def read_series(metrics_csv: Path) -> dict[tuple[str, str, str], dict[int, float]]:
    """(stage, domain, metric) -> epoch from 1 -> mean of the epoch's values, for stages train and val."""
    values: dict[tuple[str, str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    with Path(metrics_csv).open(newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                parts = tuple(name.split("/"))
                if value and row["epoch"] and len(parts) == 3 and parts[0] in STYLES:
                    values[parts][int(float(row["epoch"])) + 1].append(float(value))
    return {key: {epoch: float(np.mean(v)) for epoch, v in points.items()} for key, points in values.items()}


def read_column(metrics_csv: Path, name: str) -> dict[int, float]:
    """Epoch from 1 -> a metric's last value in it; empty where there is no such file or column."""
    if not metrics_csv.is_file():
        return {}
    with metrics_csv.open(newline="") as file:
        return {int(row["epoch"]) + 1: float(row[name]) for row in csv.DictReader(file) if row.get(name)}


@contextmanager
def without_font_warnings() -> Iterator[None]:
    """Draw letters that matplotlib's font lacks, such as Chinese ones, as boxes without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
        yield


def shortened(name: object, longest: int) -> str:
    """A class's name of at most that many characters, for beside an axis."""
    text = str(name)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _save(figure: Figure, path: Path) -> None:
    with without_font_warnings():
        FigureCanvasAgg(figure).print_png(path)
