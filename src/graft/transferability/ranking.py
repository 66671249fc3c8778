"""Every measure of every candidate, with what it cost, its interval and, where it says nothing, the reason."""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from graft.report.export import Table
from graft.transferability.base import Evidence, HeldOut, Measure
from graft.transferability.h_score import HScore, RegularisedHScore
from graft.transferability.imagenet_accuracy import ImageNetAccuracy
from graft.transferability.knn import KNN
from graft.transferability.leep import LEEP
from graft.transferability.linear_probe import LinearProbe
from graft.transferability.logme import LogME
from graft.transferability.nce import NCE
from graft.transferability.parameter_count import ParameterCount
from graft.transferability.parc import PARC

MEASURES: Sequence[Measure] = (
    *(LinearProbe(), KNN(), LogME(), HScore(), RegularisedHScore(), PARC(), LEEP(), NCE()),
    *(ParameterCount(), ImageNetAccuracy()),
)
MOST = max(measure.most for measure in MEASURES)  # training samples
NORMAL = 1.96  # standard deviations in half of a 95 % interval


@dataclass(frozen=True)
class Cell:
    """What one measure says of one candidate."""

    backbone: str
    measure: str
    value: float | None  # None where it says nothing
    low: float | None  # 95 % interval; None where it depends on no sample, or no resamples were asked for
    high: float | None
    seconds: float  # of the value and its interval together
    samples: int  # training samples that it took; of held-out scores the validation samples
    reason: str  # why it says nothing


def cell(measure: Measure, backbone: str, evidence: Evidence, resamples: int) -> Cell:
    """One measure of one candidate."""
    started = time.perf_counter()
    if reason := measure.refusal(evidence):
        return Cell(backbone, measure.name, None, None, None, 0.0, 0, reason)
    evidence = thinned(evidence, measure.most)
    value = measure.value(evidence)
    spread = measure.resampled(evidence, resamples)
    half = NORMAL * statistics.stdev(spread) if len(spread) > 1 else None
    samples = len(evidence.val_labels) if isinstance(measure, HeldOut) else len(evidence.labels)
    low, high = (None, None) if half is None else (value - half, value + half)
    return Cell(backbone, measure.name, value, low, high, time.perf_counter() - started, samples, "")


def thinned(evidence: Evidence, most: int) -> Evidence:
    """The same with so many training samples at random, where there are more."""
    size = len(evidence.labels)
    if size <= most:
        return evidence
    return evidence.subset(np.sort(np.random.default_rng(0).permutation(size)[:most]))


def table(cells: Sequence[Cell], backbones: Sequence[str], measures: Sequence[Measure]) -> Table:
    """A row for each measure, a column for each candidate; the best of a row has a star."""
    rows = []
    for measure in measures:
        of_row = {one.backbone: one for one in cells if one.measure == measure.name}
        best = max((one.value for one in of_row.values() if one.value is not None), default=None)
        shown = [written(of_row[name], best) for name in backbones]
        rows.append([measure.title, *shown, f"{sum(one.seconds for one in of_row.values()):.1f}"])
    caption = "Higher is better in every row; * is the best of a row; ± is half of a 95 % interval over samples."
    return Table("rank", "Backbones before training", caption, ["measure", *backbones, "seconds"], rows)


def written(one: Cell, best: float | None) -> str:
    """A cell as text: the value with half its interval, or a dash."""
    if one.value is None:
        return "-"
    half = "" if one.high is None else f" ± {one.high - one.value:.3f}"
    return f"{one.value:.3f}{half}{' *' if best is not None and math.isclose(one.value, best) else ''}"


def explanation(cells: Sequence[Cell], measures: Sequence[Measure]) -> list[str]:
    """Lines below a table: why measures say nothing, what they mean, and the verdict."""
    meanings = [f"- {one.title}: {one.means}. Not for: {one.not_for}. ({one.paper})" for one in measures]
    return [*reasons(cells), *meanings, *filter(None, [verdict(cells)])]


def reasons(cells: Sequence[Cell]) -> list[str]:
    """A line for each measure and reason of a dash, with whose it is."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for one in cells:
        if one.reason:
            grouped.setdefault((one.measure, one.reason), []).append(one.backbone)
    return [f"- {measure}: {reason} ({', '.join(names)})" for (measure, reason), names in grouped.items()]


def verdict(cells: Sequence[Cell]) -> str:
    """The order by the linear probe, and which candidates its intervals do not tell from the best."""
    probes = {one.backbone: one for one in cells if one.measure == LinearProbe.name and not one.reason}
    order = sorted(probes, key=lambda name: probes[name].value or 0.0, reverse=True)
    if len(order) < 2:
        return ""
    line, lowest = f"By the linear probe: {' > '.join(order)}.", probes[order[0]].low
    near = [name for name in order[1:] if lowest is not None and (probes[name].high or 0.0) >= lowest]
    if near:
        line += f" Its intervals overlap with the best one's: {', '.join(near)}; train these too."
    return line + " Full fine-tuning may order them otherwise."


def as_csv(cells: Sequence[Cell]) -> str:
    """A row for each cell."""
    rows = [["" if value is None else str(value) for value in asdict(one).values()] for one in cells]
    return Table("rank", "", "", list(Cell.__dataclass_fields__), rows).as_csv()


def as_json(cells: Sequence[Cell], measures: Sequence[Measure], data: Mapping[str, Any]) -> dict[str, Any]:
    """The cells, what each measure is, and what it was computed on."""
    described = {
        one.name: {"title": one.title, "paper": one.paper, "means": one.means, "not_for": one.not_for}
        for one in measures
    }
    return {"data": dict(data), "measures": described, "cells": [asdict(one) for one in cells]}
