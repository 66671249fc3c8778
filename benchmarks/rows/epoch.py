"""Training epochs through Graft's whole way over bare loops, and the same of other libraries."""

import statistics

from benchmarks import images
from benchmarks.measure import ratios
from benchmarks.peers import accelerate, bare, fastai, graft, hf_trainer, hydra_template, lightning
from benchmarks.row import Bar, Measured, Row, Settings
from benchmarks.turns import Contestant, Plan, Result, compete
from graft.cli.job import quoted

LENET = (
    Contestant("graft", graft.fit),
    Contestant("bare", bare.fit),
    Contestant("lightning", lightning.fit),
    Contestant("hydra_template", hydra_template.fit),
    Contestant("fastai", fastai.fit, needs=("fastai",)),
    Contestant("hf_trainer", hf_trainer.fit, needs=("transformers", "accelerate")),
    Contestant("accelerate", accelerate.fit, needs=("accelerate",)),
)
RESNET = (Contestant("graft", graft.fit), Contestant("bare", bare.fit_channels_last))


def lenet(settings: Settings) -> Measured:
    """LeNet on digits in memory, batches of 64, the same SGD for all."""
    file = settings.folder / "digits.pt"
    name = images.digits(file, settings.pick(20_000, 640))
    overrides = (
        *("data=mnist", "data/domain@data.target=stored", f"data.target.file={quoted(file)}"),
        *("backbone=lenet", "strategy=scratch", "optimizer=sgd", "optimizer.options={}", "optimizer.weight_decay=0"),
    )
    plan = Plan(file, "lenet", settings.folder, overrides, batch_size=64, lr=0.01, threads=settings.threads)
    result = compete(LENET, plan, settings.repeats)
    return over_bare(result, f"on {name}; ")


def resnet(settings: Settings) -> Measured:
    """ResNet-18 at 96 pixels, everything trains, AdamW; Graft also writes the checkpoint to resume from."""
    side = settings.pick(96, 32)
    file = images.patches(settings.folder / "patches.pt", settings.pick(1024, 128), side)
    weights = images.resnet18_weights(settings.folder / "resnet18.pt")
    overrides = (
        *(
            "data=mnist",
            "data/domain@data.target=stored",
            f"data.target.file={quoted(file)}",
            f"data.image_size={side}",
        ),
        *("backbone=resnet18", f"backbone.weights={quoted(weights)}", "strategy=full", "optimizer=adamw"),
        "strategy.train_bn=null",  # as the other loops do
    )
    plan = Plan(file, "resnet18", settings.folder, overrides, batch_size=64, lr=1e-3, threads=settings.threads)
    return over_bare(compete(RESNET, plan, settings.repeats))


def over_bare(result: Result, prefix: str = "") -> Measured:
    """Every contestant's epoch over the bare loop's of the same round; what Graft's helper processes took besides."""
    times = result.seconds
    theirs = times.pop("bare")
    over = {name: ratios(own, theirs) for name, own in times.items()}
    helpers = statistics.mean(epoch.helpers_cpu_s for epoch in result.epochs["graft"])
    notes = [
        f"{prefix}bare epoch {statistics.median(theirs):.3f} s; W&B's process beside Graft's took {helpers:.3f} s of "
        "CPU an epoch",
        *(f"{name}: {reason}" for name, reason in result.absent.items()),
    ]
    details = {"epochs": {name: [vars(e) for e in epochs] for name, epochs in result.epochs.items()}}
    cpu = {name: [epoch.cpu_s for epoch in epochs] for name, epochs in result.epochs.items()}
    beside = {"the same in CPU seconds": ratios(cpu["graft"], cpu["bare"])}
    beside |= {f"{name} over bare loop": values for name, values in over.items() if name != "graft"}
    return Measured(over["graft"], beside, notes, details)


ROWS = [
    Row("epoch", "LeNet epoch, 20k digits: Graft", "bare loop", Bar("<=", 0.80), lenet, repeats=10),
    Row("epoch_full", "ResNet-18 epoch, 96 px, full: Graft", "bare channels_last loop", Bar("<=", 1.05), resnet),
]
