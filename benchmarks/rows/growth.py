"""How time grows with samples, classes, features, columns, jobs and runs in a report: 1x, 4x, 16x; 1 is linear."""

import itertools
import random
from collections.abc import Callable
from pathlib import Path

from benchmarks import commands, images, sweeps
from benchmarks.measure import growth_exponent, interleave
from benchmarks.row import Bar, Measured, Row, Settings
from graft.cli.job import quoted

FACTORS = (1, 4, 16)
NOISE = 0.05  # of an exponent over these factors: a linear one is measured as 1 give or take that


def growth(settings: Settings, seconds_at: Callable[[int], float]) -> Measured:
    """The exponent of each repeat, in which every size has its turn."""
    works = {str(factor): lambda factor=factor: seconds_at(factor) for factor in FACTORS}
    times = list(interleave(works, settings.repeats).values())
    exponents = [growth_exponent(FACTORS, repeat) for repeat in zip(*times, strict=True)]
    return Measured(exponents, details={"factors": FACTORS, "seconds": times})


def fits(settings: Settings, overrides_at: Callable[[int], list[str]], shared: list[str] | None = None) -> Measured:
    """Growth of a fit, each in a process of its own; `shared` are overrides in the place of those for digits."""
    runs = itertools.count()

    def seconds_at(factor: int) -> float:
        digits = ["data=mnist", "data/domain@data.target=stored", "logger=csv", f"training.threads={settings.threads}"]
        folder = settings.folder / f"run{next(runs)}"
        results = commands.run(
            [*(digits if shared is None else shared), *overrides_at(factor)], folder, cache=folder.with_suffix(".cache")
        )
        return commands.fit_seconds(results)

    return growth(settings, seconds_at)


def samples(settings: Settings) -> Measured:
    """LeNet on more and more digits, 3 epochs."""
    files = {factor: settings.folder / f"digits{factor}.pt" for factor in FACTORS}
    for factor, file in files.items():
        images.digits(file, settings.pick(2000, 100) * factor)
    lenet = ["backbone=lenet", "strategy=scratch", f"training.epochs={settings.pick(3, 1)}"]
    return fits(settings, lambda factor: [*lenet, f"data.target.file={quoted(files[factor])}"])


def classes(settings: Settings) -> Measured:
    """LeNet on as many images of more and more classes."""
    files = {}
    for factor in FACTORS:
        file, count = settings.folder / f"classes{factor}.pt", settings.pick(64, 4) * factor
        number = settings.pick(4096, 128)
        files[factor] = images.patches(file, number, side=28, classes=count, channels=1, val=number // 4)
    lenet = ["backbone=lenet", "strategy=scratch", f"training.epochs={settings.pick(3, 1)}"]
    return fits(settings, lambda factor: [*lenet, f"data.target.file={quoted(files[factor])}"])


def features(settings: Settings) -> Measured:
    """A network whose work is proportional to its number of features, and a head on them."""
    file = settings.folder / "digits.pt"
    images.digits(file, settings.pick(4000, 128))
    shared = [
        "backbone=wide",
        "strategy=scratch",
        f"data.target.file={quoted(file)}",
        f"training.epochs={settings.pick(3, 1)}",
    ]
    base = settings.pick(512, 16)
    return fits(settings, lambda factor: [*shared, f"backbone.features={base * factor}"])


def jobs(settings: Settings) -> Measured:
    """Sweeps of more and more jobs, from the end of the first, which imports everything, to that of the last."""
    sweeps = itertools.count()

    def seconds_at(factor: int) -> float:
        count = settings.pick(2, 1) * factor + 1
        overrides = [
            *("data=glyphs_digits", "backbone=lenet", "strategy=scratch", "data.labels_per_class=5"),
            *("training.epochs=1", f"training.threads={settings.threads}", "logger=csv"),
            f"seed={','.join(map(str, range(count)))}",
        ]
        folder = settings.folder / f"sweep{next(sweeps)}"
        return sum(commands.gaps(commands.sweep(overrides, folder, cache=folder.with_suffix(".cache"))))

    return growth(settings, seconds_at)


def columns(settings: Settings) -> Measured:
    """An MLP on tables with more and more columns of numbers."""
    files = {factor: settings.folder / f"columns{factor}.csv" for factor in FACTORS}
    for factor, file in files.items():
        write_table(file, rows=settings.pick(4000, 120), columns=settings.pick(32, 2) * factor)

    def overrides_at(factor: int) -> list[str]:
        return [
            *("data=table", "data/domain@data.target=table_file", "backbone=mlp", "strategy=scratch"),
            *(f"data.target.file={quoted(files[factor])}", "logger=csv", "baselines=none"),
            *(f"training.epochs={settings.pick(3, 1)}", f"training.threads={settings.threads}"),
        ]

    return fits(settings, overrides_at, shared=[])


def write_table(file: Path, rows: int, columns: int) -> None:
    """Numbers, and a label that follows the first of them."""
    draw = random.Random(0)
    lines = [",".join([*(f"x{column}" for column in range(columns)), "label"])]
    for _ in range(rows):
        values = [draw.gauss(0, 1) for _ in range(columns)]
        lines.append(",".join([*(f"{value:.4f}" for value in values), "yes" if values[0] > 0 else "no"]))
    file.write_text("\n".join(lines) + "\n")


def report(settings: Settings) -> Measured:
    """Lines, summary and report of sweeps of more and more jobs that are done, of 16 configurations."""
    job = sweeps.one_job(settings.folder)
    sweeps.costs(job, settings.folder / "first", 32)  # imports
    numbers = itertools.count()

    def seconds_at(factor: int) -> float:
        found = sweeps.costs(job, settings.folder / f"sweep{next(numbers)}", settings.pick(63, 32) * factor)
        return found.lines + found.summary + found.report

    return growth(settings, seconds_at)


LINEAR = Bar("<=", 1 + NOISE)
ROWS = [
    Row("growth_samples", "exponent of the fit's time in samples", "", LINEAR, samples, repeats=3),
    Row("growth_classes", "exponent of the fit's time in classes", "", LINEAR, classes, repeats=3),
    Row("growth_features", "exponent of the fit's time in features", "", LINEAR, features, repeats=3),
    Row("growth_columns", "exponent of the fit's time in columns", "", LINEAR, columns, repeats=3),
    Row("growth_jobs", "exponent of a sweep's time in jobs", "", LINEAR, jobs, repeats=3),
    Row("growth_report", "exponent of the time of lines, summary and report in runs", "", LINEAR, report, repeats=3),
]
