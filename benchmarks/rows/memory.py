"""Memory: with ten times as many images, and over a hundred jobs of a sweep."""

import itertools
import statistics

from benchmarks import commands, images
from benchmarks.measure import interleave, ratios
from benchmarks.row import Bar, Measured, Row, Settings
from graft.cli.job import quoted

TIMES = 10
AROUND = 5  # jobs whose median stands for the memory at a moment


def more_images(settings: Settings, strategy: str) -> Measured:
    """Peak memory of a run on ten times as many photos over one on the photos, each in its own process."""
    weights = images.resnet18_weights(settings.folder / "resnet18.pt")
    few = settings.pick(300, 20)
    folders = {"many": settings.folder / "many", "few": settings.folder / "few"}
    images.photos(folders["few"], few, few=20)
    name = images.photos(folders["many"], few * TIMES, few=20)

    runs = itertools.count()

    def peak(part: str) -> float:
        overrides = [
            *("data=image_folder", f"data.target.root={quoted(folders[part])}", "data.image_size=64"),
            *(
                "data.num_workers=0",
                "data.eval_batch_size=64",
                "backbone=resnet18",
                f"backbone.weights={quoted(weights)}",
            ),
            *(f"strategy={strategy}", "training.epochs=2", f"training.threads={settings.threads}", "logger=csv"),
        ]
        run = settings.folder / f"run{next(runs)}"
        return commands.run(overrides, run, cache=run.with_suffix(".cache"))["peak_memory_mb"]

    peaks = interleave({part: lambda part=part: peak(part) for part in folders}, settings.repeats)
    note = f"on {name}; {few} images: {statistics.median(peaks['few']):,.0f} MiB"
    return Measured(ratios(peaks["many"], peaks["few"]), notes=[note], details={"peak_memory_mb": peaks})


def frozen(settings: Settings) -> Measured:
    """With features kept."""
    return more_images(settings, "frozen")


def full(settings: Settings) -> Measured:
    """With decoded photos kept."""
    return more_images(settings, "full")


def many_jobs(settings: Settings) -> Measured:
    """Memory of a process after 100 jobs over that after 20: what a job leaves behind adds up."""
    early, late = settings.pick((20, 100), (2, 4))
    overrides = [
        *("data=glyphs_digits", "backbone=lenet", "strategy=scratch", "data.labels_per_class=5", "training.epochs=1"),
        *(f"training.threads={settings.threads}", f"seed={','.join(map(str, range(late)))}"),
    ]
    values, memory = [], []
    for repeat in range(settings.repeats):
        jobs = commands.sweep(overrides, settings.folder / f"sweep{repeat}", settings.folder / f"cache{repeat}")
        memory = [job.memory_mb for job in jobs]
        values.append(at(memory, late) / at(memory, early))
    note = f"{at(memory, early):,.0f} MiB after {early} jobs, {at(memory, late):,.0f} MiB after {late}"
    return Measured(values, notes=[note], details={"memory_mb_of_last_repeat": memory})


def at(memory: list[float], job: int) -> float:
    """Memory around a job, counted from 1: the median of the last few up to it."""
    return statistics.median(memory[max(0, job - AROUND) : job])


TEN = "1x"
ROWS = [
    Row("memory_frozen", "peak memory at 10x images, frozen", TEN, Bar("<=", 1.20), frozen, repeats=3),
    Row("memory_full", "peak memory at 10x images, full", TEN, Bar("<=", 1.20), full, repeats=3),
    Row("memory_jobs", "memory after 100 jobs of a sweep", "after 20", Bar("<=", 1.05), many_jobs, repeats=1),
]
