"""Sweeps of many jobs without training them: what a sweep of 1,000 costs beside its jobs.

`python -m benchmarks.sweeps 63 250 1000` runs one small job, writes its record once for each job of a sweep, through
the same folders and files, and prints CPU seconds of all lines that the jobs print, of the summary and of the report.
"""

import contextlib
import copy
import io
import json
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import commands
from graft.files import write_whole
from graft.report import publish
from graft.report.summary import summarise
from graft.report.sweep_line import job_line
from graft.runs.folder import DONE, OVERRIDES, RESULTS, RunFolder, SweepFolder
from graft.runs.sweep_plan import SweepPlan

STRATEGIES, RATES = ("scratch", "frozen", "full", "lp_ft"), (1e-3, 3e-3, 1e-2, 3e-2)
SMALL = (
    *("data=glyphs_digits", "backbone=lenet", "strategy=scratch", "data.labels_per_class=4", "training.epochs=2"),
    *("training.threads=1", "logger=csv", "baselines=none", "trainer=cpu", "save.model=none"),
)


@dataclass(frozen=True)
class Costs:
    """CPU seconds, and the size of the sweep's folder without weights."""

    lines: float
    summary: float
    report: float
    megabytes: float


def one_job(folder: Path) -> Path:
    """A real run, whose files the jobs have, but for the pictures that a sweep does not draw."""
    commands.run(SMALL, folder / "job", folder / "cache")
    return folder / "job"


def costs(job: Path, folder: Path, jobs: int) -> Costs:
    """Make a sweep of so many jobs, each with a score of its own, then summarise and report it."""
    record = json.loads((job / RESULTS).read_text())
    plan, draw = SweepPlan(jobs, ["strategy", "optimizer.lr", "seed"]), random.Random(0)
    folder.mkdir(parents=True)
    sweep = SweepFolder(folder)
    sweep.take()
    sweep.claim(adopt=True)
    lines = 0.0
    for number in range(jobs):
        own = RunFolder(folder / f"job{number:06d}")
        own.take()
        own.claim()
        shutil.copytree(
            job, own.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(DONE, ".graft*", "*.ckpt", "*.png")
        )
        seed, setting = divmod(number, len(STRATEGIES) * len(RATES))
        rate, strategy = divmod(setting, len(STRATEGIES))
        overrides = [f"strategy={STRATEGIES[strategy]}", f"optimizer.lr={RATES[rate]}", f"seed={seed}"]
        results = copy.deepcopy(record)
        results["score"]["value"] = results["selection"]["value"] = 0.6 + 0.2 * draw.random()
        results["seeds"]["train"], results["overrides"] = seed, overrides
        write_whole(own.path / OVERRIDES, "".join(f"- {one}\n" for one in overrides))
        write_whole(own.path / RESULTS, json.dumps(results))
        write_whole(own.path / DONE, "done\n")
        began = time.process_time()
        job_line(plan, folder, number, overrides, results)
        lines += time.process_time() - began
        own.release()
    with contextlib.redirect_stdout(io.StringIO()):
        began = time.process_time()
        summarise(folder)
        summary = time.process_time() - began
        began = time.process_time()
        publish.of_sweep(folder)
        report = time.process_time() - began
    sweep.release()
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Costs(lines, summary, report, size / 1e6)


def main(sizes: list[int]) -> None:
    """Print the costs of sweeps of these numbers of jobs; a first small one is not counted, as it imports."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        job = one_job(root)
        costs(job, root / "first", 32)
        for jobs in sizes:
            found = costs(job, root / str(jobs), jobs)
            print(
                f"{jobs} jobs: lines {found.lines:.2f} s, summary {found.summary:.2f} s, report {found.report:.2f} s, "
                f"{found.megabytes:.0f} MB without weights",
                flush=True,
            )


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [63, 250, 1000])
