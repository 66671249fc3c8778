"""ResNet-50 in bf16 at 224 pixels, where there is a GPU: images a second of Graft's training over others'."""

import statistics

import torch

from benchmarks import images
from benchmarks.measure import ratios
from benchmarks.peers import gpu, graft
from benchmarks.row import Bar, Measured, Row, Settings
from benchmarks.turns import Contestant, Plan, compete
from graft.cli.job import quoted

BATCH = 256


def training(settings: Settings, other: Contestant) -> Measured:
    """Graft's whole way, data from the main memory; the other's data lie on the GPU. Compiling is in the warm-up."""
    side, samples = settings.pick(224, 64), settings.pick(8192, 512)
    batch = settings.pick(BATCH, 64)
    file = images.patches(settings.folder / "patches.pt", samples, side)
    overrides = (
        *("data=mnist", "data/domain@data.target=stored", f"data.target.file={quoted(file)}"),
        *(f"data.image_size={side}", "data.num_workers=8", "backbone=resnet50", "strategy=scratch", "optimizer=sgd"),
        *("trainer=gpu", "trainer.precision=bf16-mixed", "++training.channels_last=true", "++training.compile=true"),
    )
    plan = Plan(file, "resnet50", settings.folder, overrides, batch_size=batch, lr=0.01, threads=settings.threads)
    times = compete([Contestant("graft", graft.fit), other], plan, settings.repeats).seconds
    speeds = {name: [samples / seconds for seconds in values] for name, values in times.items()}
    note = ", ".join(f"{name} {statistics.median(values):,.0f} images/s" for name, values in speeds.items())
    return Measured(ratios(speeds["graft"], speeds[other.name]), notes=[note], details={"images_per_s": speeds})


def compiled_loop(settings: Settings) -> Measured:
    """Over a bare loop with torch.compile."""
    return training(settings, Contestant("bare", gpu.fit_compiled))


def timm_recipe(settings: Settings) -> Measured:
    """Over timm's training script."""
    return training(settings, Contestant("timm", gpu.fit_timm, needs=("timm",)))


def without_gpu() -> str:
    """Why the rows cannot run here."""
    return "" if torch.cuda.is_available() else "needs a CUDA GPU"


FAST = Bar(">=", 0.95)
NAME = "ResNet-50, bf16, 224 px, images/s: Graft"
ROWS = [
    Row("gpu", NAME, "bare compiled loop", FAST, compiled_loop, repeats=10, missing=without_gpu),
    Row("gpu_timm", NAME, "timm's recipe", FAST, timm_recipe, repeats=10, missing=without_gpu),
]
