"""A step of Graft over a step of a bare loop that computes the same, for trainings that are more than one plain fit.

ResNet-18 at 96 px, batches of 32, AdamW, one thread. The bare loop has deep copies of the run's own parts, images that
were normalised before it begins, no metrics and no log. Both take turns step by step, in CPU time.
"""

import copy
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import images
from benchmarks.measure import interleave, ratios
from benchmarks.row import Bar, Measured, Row, Settings
from benchmarks.steps import WARM_UP, begin, experiment_of
from graft.backbones.base import Backbone
from graft.cli.job import quoted
from graft.experiment import Experiment
from graft.strategies.base import Phase, frozen_modules
from graft.terms.alignment.reversal import reverse

BATCH, SIDE, LR = 32, 96, 1e-4
EPOCHS = 6  # as many as `strategy=gradual` needs to get to the whole ResNet
BOTH = "data/domain@data.source=stored"
OVERRIDES = {
    "joint": (BOTH, "strategy=full", "objective.alpha=0.25"),
    "dann": (BOTH, "strategy=full", "objective.alpha=1", "data.target_setting=unsupervised", "term=[dann]"),
    "gradual": ("strategy=gradual",),
    "lora": ("strategy=lora",),
}
WORDS = {
    "joint": "joint training, alpha .25",
    "dann": "DANN",
    "gradual": "gradual, all phases",
    "lora": "LoRA",
}


def step_over_bare(name: str, settings: Settings) -> Measured:
    """Steps of one training and of the bare loop in turns."""
    side = settings.pick(SIDE, 32)
    steps_an_epoch = math.ceil((WARM_UP + settings.repeats) / EPOCHS)
    count = steps_an_epoch * EPOCHS
    file = images.patches(settings.folder / "patches.pt", BATCH * settings.pick(8, 2), side)
    weights = images.resnet18_weights(settings.folder / "resnet18.pt")
    overrides = [
        *(f"data.image_size={side}", "backbone=resnet18", f"backbone.weights={quoted(weights)}"),
        *("optimizer=adamw", f"optimizer.lr={LR}", f"data.batch_size={BATCH}", "cache.features=false"),
        *(f"training.epochs={EPOCHS}", f"data.epoch={steps_an_epoch}", *OVERRIDES[name]),
        *([f"data.source.file={quoted(file)}"] if BOTH in OVERRIDES[name] else []),
    ]
    experiment = experiment_of(settings.folder / "run", settings.folder / "cache", file, overrides)
    bare = timed(bare_steps(experiment, name, *images.load(file)["train"], steps_an_epoch))
    steps, thread = begin(experiment)
    works: dict[str, Callable[[], float]] = {"graft": steps.step, "bare": bare}
    times = {who: taken[WARM_UP:] for who, taken in interleave(works, count).items()}
    thread.join()
    note = f"a step of the bare loop {1000 * statistics.median(times['bare']):.0f} ms of CPU"
    return Measured(ratios(times["graft"], times["bare"]), notes=[note], details={"seconds": times})


def timed(steps: Iterator[None]) -> Callable[[], float]:
    """The CPU seconds of one more step."""

    def step() -> float:
        started = time.thread_time()
        next(steps)
        return time.thread_time() - started

    return step


def bare_steps(experiment: Experiment, name: str, raw: Tensor, labels: Tensor, steps: int) -> Iterator[None]:
    """Step after step of a bare loop on copies of a run's parts, `steps` an epoch."""
    module = experiment.module
    backbone, head = copy.deepcopy(module.backbone), copy.deepcopy(module.head("target"))
    parts: list[nn.Module] = [backbone, head]
    if name == "dann":
        discriminator = copy.deepcopy(module.terms["dann"].get_submodule("discriminator"))
        parts.append(discriminator)
    optimizer = torch.optim.AdamW([parameter for part in parts for parameter in part.parameters()], lr=LR)
    pixels = images.normalised(raw)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        if name not in ("joint", "dann"):
            return F.cross_entropy(head(backbone(x)), y)
        other = torch.randint(len(labels), (BATCH,))
        features = backbone(torch.cat([pixels[other], x]))
        source, target = (head(part) for part in features.split([BATCH, len(x)]))
        if name == "joint":
            return 0.25 * F.cross_entropy(source, labels[other]) + 0.75 * F.cross_entropy(target, y)
        truth = torch.cat([torch.ones(BATCH), torch.zeros(len(x))])
        domains = F.binary_cross_entropy_with_logits(discriminator(reverse(features, 1.0)), truth)
        return F.cross_entropy(source, labels[other]) + domains

    for phase in module.phases(experiment.epochs):
        freeze(backbone.train(), phase)
        batches = itertools.cycle(torch.arange(len(labels)).split(BATCH))
        for indices in itertools.islice(batches, phase.epochs * steps):
            optimizer.zero_grad()
            loss_of(pixels[indices], labels[indices]).backward()
            optimizer.step()
            yield


def freeze(backbone: Backbone, phase: Phase) -> None:
    """Let a phase's parameters alone train."""
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name in phase.parameters)
    for part in frozen_modules(backbone, phase):
        part.training = False


def row(name: str) -> Row:
    """The row of one training."""
    return Row(
        f"step_{name}",
        f"a step of {WORDS[name]}: Graft",
        "bare loop",
        Bar("<=", 1.05),
        lambda settings: step_over_bare(name, settings),
        repeats=20,
    )


ROWS = [row(name) for name in OVERRIDES]
