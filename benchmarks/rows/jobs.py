"""What a job of a sweep costs beside its training.

The cost of a job is the wall time from the end of the job before to its own end, less the time of its fit (`fit_s`).
So it holds composing and checking the config, data, network, loggers, test, pictures, results and the sweep's own part.
The first job is left out: it imports everything and pretrains the backbone that the others share.
"""

from benchmarks import commands
from benchmarks.row import Bar, Measured, Row, Settings


def cost(settings: Settings, *logger: str) -> Measured:
    """Cost of every job but the first of a sweep over seeds; `repeats` counts jobs."""
    overrides = [
        *(
            "experiment=resnet_ft",
            "strategy=frozen",
            "optimizer.lr=5e-3",
            "data.source.samples=512",
            "pretrain.epochs=1",
            "training.epochs=2",
        ),
        *(f"training.threads={settings.threads}", f"seed={','.join(map(str, range(settings.repeats + 1)))}", *logger),
    ]
    jobs = commands.sweep(overrides, settings.folder / "sweep", settings.folder / "cache")
    later = [job.results for job in jobs[1:]]
    costs = [gap - commands.fit_seconds(r) for gap, r in zip(commands.gaps(jobs), later, strict=True)]
    without_test = [c - r["time"]["test_s"] for c, r in zip(costs, later, strict=True)]
    return Measured(costs, beside={"the same without the test": without_test})


def csv_only(settings: Settings) -> Measured:
    """Recorded in metrics.csv alone."""
    return cost(settings, "logger=csv")


def with_wandb(settings: Settings) -> Measured:
    """Recorded in W&B too, offline."""
    return cost(settings, "logger=wandb", "logger.wandb.mode=offline")


ROWS = [
    Row("jobs", "a sweep's job beside its fit, no W&B", "", Bar("<=", 0.60), csv_only, repeats=11, unit="s"),
    Row(
        "jobs_wandb", "a sweep's job beside its fit, W&B offline", "", Bar("<=", 1.20), with_wandb, repeats=11, unit="s"
    ),
]
