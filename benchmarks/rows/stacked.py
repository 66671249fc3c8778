"""A sweep of heads on frozen features: its jobs trained together over the same one by one, in one process each."""

import statistics
from collections.abc import Callable

import torch

from benchmarks import commands, images
from benchmarks.measure import interleave, ratios
from benchmarks.networks import wide
from benchmarks.row import Bar, Measured, Row, Settings
from graft.cli.job import quoted

SIDE = 16  # pixels
LAUNCHERS = ("stacked", "basic")


def sweep(settings: Settings, features: int) -> Measured:
    """8 rates x 8 seeds of a linear head on cached features; a fit has 20 epochs of 8 steps.

    The value is what the stacked sweep takes before it tests and records its first job, over the other one's wall time.
    """
    rates, seeds, epochs = settings.pick((8, 8, 20), (2, 2, 2))
    data = images.patches(settings.folder / "patches.pt", settings.pick(512, 64), SIDE, val=settings.pick(256, 64))
    weights = settings.folder / "wide.pt"
    torch.manual_seed(0)
    torch.save(wide("wide", SIDE, 3, features).state_dict(), weights)
    overrides = [
        *(
            "data=mnist",
            "data/domain@data.target=stored",
            f"data.target.file={quoted(data)}",
            f"data.image_size={SIDE}",
        ),
        *("backbone=wide", f"backbone.features={features}", f"backbone.weights={quoted(weights)}", "strategy=frozen"),
        *(f"training.epochs={epochs}", f"training.threads={settings.threads}", "logger=csv", "baselines=none"),
    ]
    cache = settings.folder / "cache"
    commands.run(overrides, settings.folder / "first", cache)  # the features
    grid = [
        f"optimizer.lr={','.join(str(0.001 * 2**number) for number in range(rates))}",
        f"seed={','.join(map(str, range(seeds)))}",
    ]
    found: dict[str, list[list[commands.Job]]] = {launcher: [] for launcher in LAUNCHERS}

    def run(launcher: str) -> float:
        folder = settings.folder / f"{launcher}{len(found[launcher])}"
        jobs = commands.sweep([*overrides, *grid, f"hydra/launcher={launcher}"], folder, cache)
        found[launcher].append(jobs)
        return jobs[-1].ended - jobs[0].sweep_began

    whole = interleave({launcher: lambda launcher=launcher: run(launcher) for launcher in LAUNCHERS}, settings.repeats)
    before = [jobs[0].began - jobs[0].sweep_began for jobs in found["stacked"]]
    cpu = {name: [jobs[-1].ended_cpu - jobs[0].sweep_began_cpu for jobs in found[name]] for name in LAUNCHERS}
    cpu_before = [jobs[0].began_cpu - jobs[0].sweep_began_cpu for jobs in found["stacked"]]
    fits = {name: [sum(job.results["time"]["fit_s"] for job in jobs) for jobs in found[name]] for name in LAUNCHERS}
    peaks = {name: [max(map(peak, jobs)) for jobs in found[name]] for name in LAUNCHERS}
    written = [all_of - first for all_of, first in zip(whole["stacked"], before, strict=True)]
    seconds = {"one by one": whole["basic"], "set up and trained together": before, "tested and recorded": written}
    cpu_seconds = {"one by one": cpu["basic"], "set up and trained together": cpu_before, "all of it": cpu["stacked"]}
    return Measured(
        ratios(before, whole["basic"]),
        beside={
            "the same, with tests and records": ratios(whole["stacked"], whole["basic"]),
            "the same in CPU seconds": ratios(cpu_before, cpu["basic"]),
            "with tests and records in CPU seconds": ratios(cpu["stacked"], cpu["basic"]),
            "the fits alone": ratios(fits["stacked"], fits["basic"]),
            "peak memory": ratios(peaks["stacked"], peaks["basic"]),
        },
        notes=[
            ", ".join(f"{name} {statistics.median(values):.1f} {unit}" for name, values in of.items())
            for of, unit in ((seconds, "s"), (cpu_seconds, "CPU s"))
        ],
        details={"seconds": seconds, "cpu_seconds": cpu_seconds, "fit_s": fits, "peak_memory_mb": peaks},
    )


def peak(job: commands.Job) -> float:
    """MiB: the most of the job's fit, or what the process held after the job."""
    return max(job.memory_mb, job.results["peak_memory_mb"] or 0.0)


def of_features(features: int) -> Callable[[Settings], Measured]:
    """The sweep with so many features."""
    return lambda settings: sweep(settings, features)


ROWS = [
    Row(
        f"stacked_{size}",
        f"64 heads on {size} features trained together",
        "one by one",
        Bar("<=", 0.20),
        of_features(size),
        repeats=3,
    )
    for size in (84, 512, 1280)
]
