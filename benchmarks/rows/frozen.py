"""Frozen parts: their features are made once, so that a fit costs one forward pass, and the next one nothing."""

from pathlib import Path

import torch
from torch import nn
from torchvision.models import resnet18

from benchmarks import commands, images, own_process
from benchmarks.measure import Cost, cost, interleave, ratios
from benchmarks.row import Bar, Measured, Row, Settings, compared
from graft.cli.job import quoted

FORWARD_BATCH = 256


class Setting:
    """A ResNet-18 of random weights and images for it, in a row's folder."""

    def __init__(self, settings: Settings, samples: int, batch_size: int = 256) -> None:
        self.batch_size = batch_size  # large by default, as usual for a head alone
        self.folder = settings.folder
        self.threads = settings.threads
        self.side = settings.pick(96, 32)
        self.file = images.patches(self.folder / "patches.pt", samples, self.side, val=samples // 8)
        self.weights = images.resnet18_weights(self.folder / "resnet18.pt")
        self.count = 0

    def overrides(self, strategy: str, epochs: int) -> list[str]:
        """Graft's words for it."""
        return [
            *("data=mnist", "data/domain@data.target=stored", f"data.target.file={quoted(self.file)}"),
            *(f"data.image_size={self.side}", "backbone=resnet18", f"backbone.weights={quoted(self.weights)}"),
            *(f"strategy={strategy}", f"training.epochs={epochs}", f"training.threads={self.threads}"),
            f"data.batch_size={self.batch_size}",
        ]

    def new_folder(self, name: str) -> Path:
        """A folder that no run has used."""
        self.count += 1
        return self.folder / f"{name}{self.count}"

    def fit(self, overrides: list[str], cache: Path) -> Cost:
        """Of one run's fit."""
        return commands.fit_cost(overrides, self.new_folder("run"), cache)

    def forward(self) -> Cost:
        """Of one bare forward pass over the images that a fit reads, validation included."""
        return own_process.call(forward_cost, self.file, self.weights, self.threads)


def forward_cost(file: Path, weights: Path, threads: int) -> Cost:
    """Of a forward pass in the fastest plain way: normalised before, channels last, no gradients, warm."""
    torch.set_num_threads(threads)
    network = resnet18()
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.fc = nn.Identity()
    network = network.eval().to(memory_format=torch.channels_last)
    parts = images.load(file)
    inputs = images.normalised(torch.cat([parts["train"][0], parts["val"][0]])).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        network(inputs[:FORWARD_BATCH])
        return cost(lambda: [network(batch) for batch in inputs.split(FORWARD_BATCH)])


def fit_over_forward(settings: Settings) -> Measured:
    """A frozen fit of 10 epochs, nothing cached before it."""
    setting = Setting(settings, settings.pick(2048, 128))
    overrides = setting.overrides("frozen", 10)
    works = {
        "fit": lambda: setting.fit(overrides, cache=setting.new_folder("cache")),
        "forward": setting.forward,
    }
    return compared(interleave(works, settings.repeats))


def sweep_over_forward(settings: Settings) -> Measured:
    """8 learning rates in one process, nothing cached before the first."""
    setting = Setting(settings, settings.pick(2048, 128))
    rates = [0.001 * 2**number for number in range(settings.pick(8, 2))]
    overrides = [*setting.overrides("frozen", 10), f"optimizer.lr={','.join(map(str, rates))}", "baselines=none"]

    def fits() -> float:
        jobs = commands.sweep(overrides, setting.new_folder("sweep"), setting.new_folder("cache"))
        return sum(commands.fit_seconds(job.results) for job in jobs)

    times = interleave({"fits": fits, "forward": lambda: setting.forward().seconds}, settings.repeats)
    return Measured(ratios(times["fits"], times["forward"]), details={"seconds": times})


def second_over_first(settings: Settings) -> Measured:
    """The same run twice with one cache; each repeat begins with an empty one."""
    setting = Setting(settings, settings.pick(2048, 128))
    overrides = setting.overrides("frozen", 10)
    costs: dict[str, list[Cost]] = {"second": [], "first": []}
    for _ in range(settings.repeats):
        cache = setting.new_folder("cache")
        costs["first"].append(setting.fit(overrides, cache))
        costs["second"].append(setting.fit(overrides, cache))
    return compared(costs)


def gradual(settings: Settings) -> Measured:
    """Gradual unfreezing in steps of 3 epochs, with the frozen part's features kept and without."""
    setting = Setting(settings, settings.pick(1024, 128), batch_size=64)
    overrides = [*setting.overrides("gradual", 9), "strategy.every_epochs=3"]

    def fit(word: str) -> Cost:
        return setting.fit([*overrides, f"cache.features={word}"], cache=setting.new_folder("cache"))

    works = {"cached": lambda: fit("true"), "uncached": lambda: fit("false")}
    return compared(interleave(works, settings.repeats))


PASS = "one bare forward pass"
ROWS = [
    Row("frozen", "frozen ResNet-18, 10 epochs: fit", PASS, Bar("<=", 1.10), fit_over_forward),
    Row("sweep", "8 learning rates on frozen features: all fits", PASS, Bar("<=", 1.50), sweep_over_forward),
    Row("again", "the same frozen fit again", "the first", Bar("<=", 0.04), second_over_first),
    Row("gradual", "gradual, prefix cached: fit", "uncached", Bar("<=", 0.60), gradual, repeats=3),
]
