"""A sweep's end: every job's result in one table, seeds folded, best first by validation, cost beside score."""

import csv
import json
import math
import os
import signal
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from graft import job
from graft import paths as paths  # registers the resolvers that name folders, in parallel launchers' workers too
from graft.errors import FolderRefused, LaunchRefused
from graft.runs.folder import REFUSED, STOPPED, RunFolder, SweepFolder
from graft.runs.process import is_main_process
from graft.untrusted import read_overrides

STOPPING = b"\nCtrl-C: no further job begins, the running ones finish or save. Press it again to stop at once.\n"
CONFIDENCE = 0.95


@dataclass
class Job:
    """One job's folder in a sweep."""

    folder: str
    overrides: dict[str, str]
    results: dict[str, Any] | None = None  # of a finished job
    error: str = ""  # first line, of a failed job
    file: str = ""  # where the whole of it stands
    diverged: str = ""  # first line, of a job whose training met values that are not finite


@dataclass
class Row:
    """Jobs that differ in nothing but their seed."""

    overrides: dict[str, str]
    jobs: list[Job] = field(default_factory=list)

    @property
    def finished(self) -> list[dict[str, Any]]:
        """Results of the jobs that have any."""
        return [job.results for job in self.jobs if job.results]

    @property
    def failed(self) -> list[Job]:
        """Jobs that ended with an error."""
        return [job for job in self.jobs if job.error]

    @property
    def diverged(self) -> list[Job]:
        """Jobs that are done without a result."""
        return [job for job in self.jobs if job.diverged]

    @property
    def unfinished(self) -> int:
        """Number of jobs that were interrupted or still run."""
        return len(self.jobs) - len(self.finished) - len(self.failed) - len(self.diverged)

    @property
    def scores(self) -> list[float]:
        """The scores that are numbers."""
        return self.numbers("score", "value")

    def numbers(self, *path: str) -> list[float]:
        """A number in the results of every job that has it, e.g. numbers("tuning", "lr", "value")."""
        return [value for results in self.finished if (value := number(results, path)) is not None]

    def mean(self, *path: str) -> float | None:
        """Mean over the jobs of a number in their results, e.g. mean("time", "fit_s")."""
        return mean(self.numbers(*path))


class SweepCallback(Callback):
    """Hydra's hook around a sweep: its folder's lock, Ctrl-C between jobs, the summary, the exit code."""

    def __init__(self) -> None:
        self.previous: Any = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claim the folder before Hydra writes to it, forget an earlier Ctrl-C there and take over the next."""
        folder = Path(config.hydra.sweep.dir)
        sweep = SweepFolder(folder)
        with refusal():
            sweep.take()
            sweep.claim(adopt=True)  # a sweep only adds to its folder
            sweep.remove(STOPPED)
            sweep.remove(REFUSED)
        job.STATE.exit_code = job.FAILED  # until the end was reached
        if not job.is_main_thread():
            return

        pressed = False

        def stop(signum: int, frame: FrameType | None) -> None:
            nonlocal pressed
            if job.STATE.running or pressed:
                raise KeyboardInterrupt
            pressed = True
            folder.mkdir(parents=True, exist_ok=True)
            (folder / job.STOPPED).touch()
            os.write(sys.__stderr__.fileno(), STOPPING)

        self.previous = signal.signal(signal.SIGINT, stop)

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse a run's folder before Hydra makes it or writes to it."""
        if is_main_process():
            with refusal():
                RunFolder(config.hydra.run.dir, beside=job.written_by_hydra(config.hydra)).refuse_foreign()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Summarise and set the exit code."""
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)
        folder = Path(config.hydra.sweep.dir).absolute()
        rows = summarise(folder)
        failed, refused = all_failed(rows), SweepFolder(folder).refused()
        all_diverged = bool(rows) and all(one.diverged for row in rows for one in row.jobs)
        job.STATE.exit_code = job.FAILED if all_diverged else job.OK
        if failed:  # 2 where all that is wrong are the jobs' folders
            job.STATE.exit_code = job.FAILED if len(failed) > len(refused) else job.USER_ERROR
        if (folder / job.STOPPED).exists():
            job.STATE.exit_code = job.INTERRUPTED
            again = job.command(f"hydra.sweep.dir={job.quoted(folder)}")
            print(f"The sweep was interrupted. To run what is missing: {again}", file=sys.stderr)
        SweepFolder(folder).release()

    def __getstate__(self) -> dict[str, Any]:
        """What goes to parallel workers: no signal handler."""
        return {"previous": None}


@contextmanager
def refusal() -> Iterator[None]:
    """Let a refused folder end the command; see LaunchRefused."""
    try:
        yield
    except (FolderRefused, OSError) as error:
        raise LaunchRefused(str(error)) from None


def summarise(folder: Path) -> list[Row]:
    """Write summary.csv and summary.md of a sweep's folder, print the table and return its rows, best first."""
    jobs = read_jobs(folder)
    rows = fold(jobs)
    varied, same = split_overrides(jobs)
    table = markdown(rows, varied)
    write_csv(rows, folder / "summary.csv")
    failures = [f"- `{describe(failed)}`: {failed.error} ({failed.file})" for failed in all_failed(rows)]
    diverged = [f"- `{describe(one)}`: {one.diverged} ({one.folder})" for row in rows for one in row.diverged]
    text = [f"# Sweep {folder.name}", ""]
    if same:
        text += ["All jobs: " + " ".join(f"`{key}={value}`" for key, value in same.items()), ""]
    text += [table, "", TUNED_NOTE if only_tuned(rows) else NOTE, ""]
    if failures:
        text += [f"{len(failures)} of {len(jobs)} jobs failed:", "", *failures, ""]
    if diverged:
        text += [f"{len(diverged)} of {len(jobs)} jobs diverged:", "", *diverged, ""]
    (folder / "summary.md").write_text("\n".join(text))
    print(f"\n{table}")
    for word, lines in (("FAILED", failures), ("DIVERGED", diverged)):
        for line in lines:
            print(f"{word} {line[2:]}")
    print(folder)
    return rows


NOTE = (
    "± is the sample standard deviation over seeds (n - 1), the interval is the 95 % interval of the mean "
    "(Student's t). Times and other metrics are means over the same jobs. Rows are in the order of the validation "
    "metric that selected the checkpoints, so that nothing is chosen on the test split; without one, of the test score."
)

TUNED_NOTE = (
    "Learning rates of the head that a range test suggests: geometric means over seeds, and their range. "
    "With `optimizer.lr=auto` in place of `tune=lr` every job trains at its own."
)


def read_jobs(folder: Path) -> list[Job]:
    """Every job of a sweep's folder, in the order of their overrides."""
    jobs = []
    refused = {one["folder"]: one for one in SweepFolder(folder).refused()}
    for one in refused.values():
        overrides = dict(split_override(line) for line in one["overrides"])
        jobs.append(Job(one["folder"], overrides, error=first_error_line(one["error"]), file=REFUSED))
    for overrides in folder.glob(f"*/{job.OVERRIDES}"):
        path = overrides.parent
        if path.name in refused:
            continue
        read = Job(path.name, dict(split_override(line) for line in read_overrides(overrides)))
        if (path / job.ERROR).exists():  # even beside DONE: then the folder refused another configuration
            read.error = first_error_line((path / job.ERROR).read_text())
            read.file = f"{path.name}/{job.ERROR}"
        elif (path / job.DONE).exists():
            results = json.loads((path / job.RESULTS).read_text())
            if results.get("status") == job.DIVERGED:
                read.diverged = first_error_line(results["message"])
            else:
                read.results = results
        jobs.append(read)
    return sorted(jobs, key=lambda one: list(one.overrides.items()))


def split_override(line: str) -> tuple[str, str]:
    """`+key=value` as (key, value)."""
    key, _, value = line.partition("=")
    return key.lstrip("+~"), value


def first_error_line(text: str) -> str:
    """What went wrong in one line: of a traceback its exception, of a message its first line and first point."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return "unknown error"
    if lines[0].startswith("Traceback"):
        heads = ("Traceback", "During handling", "The above exception")
        return [line for line in lines if not line.startswith((" ", *heads))][-1]
    return " ".join(line.strip() for line in lines[:2]) if lines[0].endswith(":") else lines[0]


def fold(jobs: Iterable[Job]) -> list[Row]:
    """Jobs grouped by everything but the seed, best first, those without a score last.

    Best by validation, as the selection rule sees it: an order by test scores would choose on the test split. Where a
    job selected nothing (selection=last) there is no such number, and the order is by test score.
    """
    rows: dict[tuple[tuple[str, str], ...], Row] = {}
    for one in jobs:
        rest = {key: value for key, value in one.overrides.items() if key != "seed"}
        rows.setdefault(tuple(sorted(rest.items())), Row(rest)).jobs.append(one)

    def rank(row: Row) -> tuple[bool, float]:
        value = row.mean("selection", "value") if selected else mean(row.scores)
        if value is None:
            return True, 0.0
        return False, -value if row.finished[0]["score"]["higher_is_better"] else value

    selected = all_selected(rows.values())

    return sorted(rows.values(), key=rank)


def all_selected(rows: Iterable[Row]) -> bool:
    """Whether every finished job followed one validation metric to select its checkpoint."""
    monitors = {results.get("selection", {}).get("monitor") for row in rows for results in row.finished}
    return len(monitors) == 1 and None not in monitors


def split_overrides(jobs: Sequence[Job]) -> tuple[list[str], dict[str, str]]:
    """The keys in which jobs differ, the seed apart, and the overrides that all of them share."""
    keys = list(dict.fromkeys(key for one in jobs for key in one.overrides if key != "seed"))
    values = {key: {one.overrides.get(key) for one in jobs} for key in keys}
    same = {key: jobs[0].overrides[key] for key in keys if len(values[key]) == 1}
    return [key for key in keys if key not in same], same


def number(results: Mapping[str, Any], path: Sequence[str]) -> float | None:
    """A number in nested results, None where there is none."""
    value: Any = results
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) else None


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the numbers among the values, None without any."""
    numbers = [value for value in values if value is not None]
    return statistics.fmean(numbers) if numbers else None


def half_interval(scores: Sequence[float]) -> float | None:
    """Half the width of the mean's 95 % interval (Student's t); None for fewer than two scores."""
    if len(scores) < 2:
        return None
    from scipy.special import stdtrit

    quantile = float(stdtrit(len(scores) - 1, (1 + CONFIDENCE) / 2))
    return quantile * statistics.stdev(scores) / math.sqrt(len(scores))


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """One line a row with everything: overrides, score, cost, every other metric, seeds, folders, errors."""
    keys = list(dict.fromkeys(key for row in rows for key in row.overrides))
    metrics = list(dict.fromkeys(name for row in rows for results in row.finished for name in results["metrics"]))
    found = found_columns(rows)
    lines = []
    for row in rows:
        scores, half = row.scores, half_interval(row.scores)
        line: dict[str, Any] = {key: row.overrides.get(key) for key in keys}
        line["metric"] = next((name for name in metric_names([row])), None)
        line["mean"] = mean(scores)
        line["std"] = statistics.stdev(scores) if len(scores) > 1 else None
        line["count"] = len(scores)
        line["ci95_low"] = None if half is None else statistics.fmean(scores) - half
        line["ci95_high"] = None if half is None else statistics.fmean(scores) + half
        line["failed"] = len(row.failed)
        line["diverged"] = len(row.diverged)
        line["unfinished"] = row.unfinished
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
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(lines[0]) if lines else ["mean"])
        writer.writeheader()
        writer.writerows(lines)


def markdown(rows: Sequence[Row], varied: Sequence[str]) -> str:
    """The table for people: score with spread and interval, then cost, then the other test scores."""
    finished = [results for row in rows for results in row.finished]
    metric = next(iter(metric_names(rows)), "score")
    others = other_metrics(finished, metric)
    selected = [f"{finished[0]['selection']['monitor']} (order)"] if all_selected(rows) else []
    found = found_columns(rows)
    header = [*varied, *found, *selected, metric, "95 % interval", "n", *others, "trainable", "fit"]
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
        ("unfinished", [row.unfinished for row in rows]),
    ):
        if any(counts):
            header.append(name)
            body = [[*line, str(count or "")] for line, count in zip(body, counts, strict=True)]
    return padded([header, ["-" * len(name) for name in header], *body])


def metric_names(rows: Iterable[Row]) -> list[str]:
    """Names of the jobs' scores; a job that only looked for a learning rate has none."""
    return [results["score"]["metric"] for row in rows for results in row.finished if "score" in results]


def only_tuned(rows: Sequence[Row]) -> bool:
    """Whether the jobs looked for a learning rate and trained nothing."""
    return any(row.finished for row in rows) and not metric_names(rows)


def found_columns(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """What was found in place of `auto` or by `tune=lr`: column name -> path in the results."""
    columns = {"batch size": ("tuning", "batch_size", "value"), "learning rate": ("tuning", "lr", "value")}
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
    scores, half = row.scores, half_interval(row.scores)
    if not scores:
        score, interval = "-", ""
    else:
        center = statistics.fmean(scores)
        score = f"{center:.4f}" + (f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else "")
        interval = "" if half is None else f"{center - half:.4f} to {center + half:.4f}"
    extra = [number_cell(row.mean("metrics", name)) for name in others]
    trainable, fit = row.mean("parameters", "trainable"), row.mean("time", "fit_s")
    return [
        score,
        interval,
        str(len(scores)),
        *extra,
        "" if trainable is None else f"{trainable:,.0f}",
        "" if fit is None else f"{fit:.1f} s",
    ]


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


def all_failed(rows: Iterable[Row]) -> list[Job]:
    """The failed jobs of all rows."""
    return [one for row in rows for one in row.failed]


def describe(one: Job) -> str:
    """A job by its overrides."""
    return " ".join(f"{key}={value}" for key, value in one.overrides.items())
