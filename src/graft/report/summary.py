"""A sweep's table: seeds folded, best first by validation, cost beside score."""

import csv
import io
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graft.files import disk_message, write_whole
from graft.report import baselines
from graft.runs.record import labels_used
from graft.runs.sweeps import (
    MIN_SEEDS,
    Job,
    Row,
    all_failed,
    all_selected,
    describe,
    fold,
    mean,
    metric_names,
    only_tuned,
    read_jobs,
    split_overrides,
)


def summarise(folder: Path) -> list[Row]:
    """Write summary.csv and summary.md of a sweep's folder, print the table and return its rows, best first."""
    jobs = read_jobs(folder)
    rows = fold(jobs)
    shown = with_ensembles(jobs, rows)
    varied, same = split_overrides(jobs)
    table = markdown(shown, varied)
    failed = all_failed(rows)
    failures = failure_lines(failed, varied)
    diverged = [f"- `{describe(one)}`: {one.diverged} ({one.folder})" for row in rows for one in row.diverged]
    text = [f"# Sweep {folder.name}", ""]
    if same:
        text += ["All jobs: " + " ".join(f"`{key}={value}`" for key, value in same.items()), ""]
    others = beside(rows, varied)
    text += [table, "", TUNED_NOTE if only_tuned(rows) else NOTE, ""]
    text += ["## Baselines", "", others, "", BASELINES_NOTE, ""] if others else []
    if failures:
        text += [f"{len(failed)} of {len(jobs)} jobs failed:", "", *failures, ""]
    if diverged:
        text += [f"{len(diverged)} of {len(jobs)} jobs diverged:", "", *diverged, ""]
    print(f"\n{table}")
    if others:
        print(f"\n{others}")
    for word, lines in (("FAILED", failures), ("DIVERGED", diverged)):
        for line in lines:
            print(f"{word} {line[2:]}")
    print(folder)
    try:
        write_csv(shown, folder / "summary.csv")
        write_whole(folder / "summary.md", "\n".join(text))
    except OSError as error:  # the jobs and what is printed are whole
        print(disk_message(error, folder) or f"{folder}: the summary cannot be written: {error}", file=sys.stderr)
    return rows


def failure_lines(failed: Sequence[Job], varied: Sequence[str]) -> list[str]:
    """A line for each error, with the job that has it, or how many have it and which varied keys these share."""
    by_error: dict[str, list[Job]] = {}
    for job in failed:
        by_error.setdefault(job.error, []).append(job)
    lines = []
    for error, jobs in by_error.items():
        if len(jobs) == 1:
            lines.append(f"- `{describe(jobs[0])}`: {error} ({jobs[0].file})")
            continue
        _, same = split_overrides(jobs)
        shared = " ".join(f"`{key}={value}`" for key, value in same.items() if key in varied)
        lines.append(f"- {len(jobs)} jobs{f' with {shared}' if shared else ''}: {error} (first in {jobs[0].file})")
    return lines


def with_ensembles(jobs: Sequence[Job], rows: Sequence[Row]) -> list[Row]:
    """The rows under the mean of their predictions, where the rule is `ensemble`."""
    from graft.report.ensemble import ensembles  # numpy, pyarrow

    return [*ensembles(jobs, rows), *rows]


def table_of(jobs: Sequence[Job]) -> str:
    """The table of a sweep's jobs, best first, and that of the baselines where there are any.

    The mean of the jobs' predictions stands above where the rule is `ensemble`.
    """
    rows, varied = fold(jobs), split_overrides(jobs)[0]
    return "\n\n".join(filter(None, [markdown(with_ensembles(jobs, rows), varied), beside(rows, varied)]))


def beside(rows: Sequence[Row], varied: Sequence[str]) -> str:
    """The baselines' table as Markdown; empty without any."""
    header, *lines = baselines.table(rows, varied)
    return padded([header, ["-" * len(name) for name in header], *lines]) if lines else ""


UNBOUNDED = ("loss", "mae", "mse", "rmse", "r2")  # metrics that are no fractions
NOTE = (
    "± is the sample standard deviation over seeds, splits or folds (n - 1), the interval is the 95 % interval of the "
    "mean (Student's t; over splits and folds as Nadeau and Bengio correct it). Labels used: to train + to choose. "
    "Times and other metrics are means over the same jobs. Rows are in the order of the metric that selected the "
    "checkpoints, which under selection=budget is that of folds of the training labels, so that nothing is chosen on "
    "the test split; without one, of the test score."
)


TRIED_FIRST = "What anybody would try first"
BASELINES_NOTE = (
    "On the same splits and labels, the best by validation first; means over jobs. In no paired comparison."
)

TUNED_NOTE = (
    "Learning rates of the head that a range test suggests: geometric means over seeds, and their range. "
    "With `optimizer.lr=auto` in place of `tune=lr` every job trains at its own."
)


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """One line a row with everything: overrides, score, cost, every other metric, seeds, folders, errors."""
    keys = list(dict.fromkeys(key for row in rows for key in row.overrides))
    metrics = list(dict.fromkeys(name for row in rows for results in row.finished for name in results["metrics"]))
    found = found_columns(rows)
    lines = []
    for row in rows:
        scores, half = row.scores, half_interval(row)
        line: dict[str, Any] = {key: row.overrides.get(key) for key in keys}
        line["metric"] = next((name for name in metric_names([row])), None)
        line["mean"] = mean(row.units)
        line["std"] = statistics.stdev(scores) if len(scores) > 1 else None
        line["count"] = len(scores)
        line["splits"] = len(row.by_split)
        line["ci95_low"] = None if half is None else statistics.fmean(row.units) - half
        line["ci95_high"] = None if half is None else statistics.fmean(row.units) + half
        line["failed"] = len(row.failed)
        line["diverged"] = len(row.diverged)
        line["pruned"] = len(row.pruned)
        line["unfinished"] = row.unfinished
        line["labels_training"] = row.mean("labels", "training")
        line["labels_choosing"] = row.mean("labels", "choosing")
        line["target_steps"] = row.mean("cost", "target_steps")
        line["flops"] = row.mean("cost", "flops", "total")
        line["fit_s"] = row.mean("time", "fit_s")
        line["total_s"] = row.mean("time", "total_s")
        line["trainable"] = row.mean("parameters", "trainable")
        line["parameters"] = row.mean("parameters", "total")
        line |= {f"mean {name}": row.mean("metrics", name) for name in metrics}
        line |= {name: " ".join(f"{value:g}" for value in row.numbers(*path)) for name, path in found.items()}
        line["scores"] = " ".join(f"{score:.6g}" for score in scores)
        line["seeds"] = " ".join(str(results["seeds"]["train"]) for results in row.finished)
        line["folders"] = " ".join(one.folder for one in row.jobs)
        line["error"] = row.failed[0].error if row.failed else None
        lines.append(line)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(lines[0]) if lines else ["mean"])
    writer.writeheader()
    writer.writerows(lines)
    write_whole(path, text.getvalue())


def markdown(rows: Sequence[Row], varied: Sequence[str]) -> str:
    """The table for people: score with spread and interval, then cost, then the other test scores."""
    finished = [results for row in rows for results in row.finished]
    metric = next(iter(metric_names(rows)), "score")
    others = other_metrics(finished, metric)
    selected = [f"{finished[0]['selection']['monitor']} (order)"] if all_selected(rows) else []
    found = found_columns(rows)
    sizes = ["labels used", *(f"{split} samples" for split in ("val", "test"))]
    header = [*varied, *found, *selected, metric, "95 % interval", "n", *others, *sizes, "trainable", "fit"]
    body = [
        [
            *(row.overrides.get(key, "") for key in varied),
            *(range_cell(row.numbers(*path)) for path in found.values()),
            *(number_cell(row.mean("selection", "value")) for _ in selected),
            *cells(row, others),
        ]
        for row in rows
    ]
    if only_tuned(rows):  # no scores, no cost of a fit
        header = [*varied, *found, "n"]
        body = [
            [*line[: len(varied) + len(found)], str(len(row.finished))] for line, row in zip(body, rows, strict=True)
        ]
    for name, counts in (
        ("failed", [len(row.failed) for row in rows]),
        ("diverged", [len(row.diverged) for row in rows]),
        ("pruned", [len(row.pruned) for row in rows]),
        ("unfinished", [row.unfinished for row in rows]),
    ):
        if any(counts):
            header.append(name)
            body = [[*line, str(count or "")] for line, count in zip(body, counts, strict=True)]
    return padded([header, ["-" * len(name) for name in header], *body])


def found_columns(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """What was found in place of `auto` or by `tune=lr`: column name -> path in the results."""
    columns: dict[str, tuple[str, ...]] = {
        "batch size": ("tuning", "batch_size", "value"),
        "learning rate": ("tuning", "lr", "value"),
    }
    if only_tuned(rows):
        found = next(results for row in rows for results in row.finished)["tuning"]["lr"]
        del columns["learning rate"]
        for name in found["suggestions"]:
            columns[name + " (auto)" * (name == found["suggestion"])] = ("tuning", "lr", "suggestions", name)
    return {name: path for name, path in columns.items() if any(row.numbers(*path) for row in rows)}


def range_cell(values: Sequence[float]) -> str:
    """The geometric mean of rates or sizes, and from where to where they go."""
    if not values:
        return ""
    if len(set(values)) == 1:
        return f"{values[0]:g}"
    return f"{float(f'{statistics.geometric_mean(values):.2g}'):g} ({min(values):g} to {max(values):g})"


def other_metrics(finished: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """Besides the score: the same metric on the other domain, and forgetting."""
    names = dict.fromkeys(name for results in finished for name in results["metrics"])
    last = metric.rsplit("/", 1)[-1]
    return [
        name
        for name in names
        if name != metric and (name == "forgetting" or (name.startswith("test/") and name.endswith(f"/{last}")))
    ]


def cells(row: Row, others: Sequence[str]) -> list[str]:
    """A row's numbers as text."""
    scores, half = row.units, half_interval(row)
    if not scores:
        score, interval = "-", ""
    else:
        center = statistics.fmean(scores)
        score = f"{center:.4f}" + (f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else "")
        unit = f"{row.unit}s"
        fraction = is_fraction(row.finished[0])
        interval = "" if half is None else interval_text(len(scores), center, half, fraction, unit)
    extra = [number_cell(row.mean("metrics", name)) for name in others]
    trainable, fit = row.mean("parameters", "trainable"), row.mean("time", "fit_s")
    return [
        score,
        interval,
        repeats_cell(row),
        *extra,
        labels_cell(row),
        *(count_cell(row.numbers("data", "target", split)) for split in ("val", "test")),
        "" if trainable is None else f"{trainable:,.0f}",
        "" if fit is None else f"{fit:.1f} s",
    ]


def half_interval(row: Row) -> float | None:
    """Half the width of the mean's 95 % interval over seeds, or over splits; None for fewer than two."""
    if len(row.units) < 2:
        return None
    from graft.report.statistics import over_units  # numpy, scipy

    estimate = over_units(row.units, row.overlap)
    return estimate.interval()[1] - estimate.mean


def interval_text(n: int, center: float, half: float, fraction: bool, unit: str = "seeds") -> str:
    """A mean's interval for people: none of 2 seeds or without any spread, a fraction's no further than 0 to 1."""
    if n < MIN_SEEDS:
        return f"{n} {unit}: too few"
    if half < 1e-9 * max(1.0, abs(center)):
        return "no spread seen"
    low, high = center - half, center + half
    if fraction:
        low, high = max(low, 0.0), min(high, 1.0)
    return f"{low:.4f} to {high:.4f}"


def is_fraction(results: Mapping[str, Any]) -> bool:
    """Whether a run's score lies in 0 to 1."""
    return results["score"]["metric"].rsplit("/", 1)[-1] not in UNBOUNDED


def within_bounds(metric: str, interval: tuple[float, float]) -> tuple[float, float]:
    """An interval as it is shown: that of a metric in 0 to 1 goes no further."""
    return interval if metric in UNBOUNDED else (max(interval[0], 0.0), min(interval[1], 1.0))


def repeats_cell(row: Row) -> str:
    """How many seeds there are, of how many where some are lost; of several splits or folds those, and all jobs."""
    splits, jobs = len(row.by_split), str(len(row.scores))
    if row.lost:
        jobs = f"{jobs} of {len(row.jobs)}; {row.lost}"
    return f"{splits} {row.unit}s, {jobs} jobs" if splits > 1 else jobs


def count_cell(counts: Sequence[float]) -> str:
    """A number of samples, from and to where it differs between jobs."""
    return " to ".join(f"{count:,.0f}" for count in sorted({min(counts), max(counts)})) if counts else ""


def labels_cell(row: Row) -> str:
    """Labels that train + labels that choose, as every job has them, or from and to where they differ."""
    return " to ".join(dict.fromkeys(labels_used(results) for results in row.finished))


def number_cell(value: float | None) -> str:
    """A number as text, empty where there is none."""
    return "" if value is None else f"{value:.4f}"


def padded(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells as a Markdown table with columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    fills = [["-" if line is lines[1] else " "] * len(widths) for line in lines]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width, fill) for cell, width, fill in zip(line, widths, fill_, strict=True)) + " |"
        for line, fill_ in zip(lines, fills, strict=True)
    )
