"""A step of Graft over a step of a bare loop that computes the same, for trainings that are more than one plain fit.

ResNet-18 at 96 px, batches of 32, AdamW, one thread. The bare loop has deep copies of the run's own parts and trains on
the very batches that Graft's steps get, fused and channels_last as they are, with no metrics and no log. Both take
turns step by step, in CPU time, and their losses have to be equal.
"""

import copy
import math
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

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
from graft.inputs.base import Batch
from graft.strategies.base import Phase, frozen_modules
from graft.terms.alignment.reversal import ramp, reverse

BATCH, SIDE, LR = 32, 96, 1e-4
EPOCHS = 6  # as many as `strategy=gradual` needs to get to the whole ResNet
CLOSE = 1e-3  # in which losses may differ, relative: rounding alone differs, and adds up from step to step
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
        *("optimizer=adamw", f"optimizer.lr={LR}", "optimizer.weight_decay=0", "scheduler=constant", "rates=uniform"),
        *(f"data.batch_size={BATCH}", "cache.features=false"),
        *(f"training.epochs={EPOCHS}", f"data.epoch={steps_an_epoch}", *OVERRIDES[name]),
        *([f"data.source.file={quoted(file)}"] if BOTH in OVERRIDES[name] else []),
    ]
    experiment = experiment_of(settings.folder / "run", settings.folder / "cache", file, overrides)
    bare = Bare(experiment, name, steps_an_epoch)
    steps, thread = begin(experiment)
    # In a thread as well: a process's first one gets its memory otherwise.
    with ThreadPoolExecutor(1) as pool:
        works = {"graft": steps.step, "bare": lambda: pool.submit(bare.step, steps.batches).result()}
        times = interleave(works, count)
    thread.join()
    check_losses(steps.losses, bare.losses)
    times = {who: taken[WARM_UP:] for who, taken in times.items()}
    note = f"a step of the bare loop {1000 * statistics.median(times['bare']):.0f} ms of CPU; losses are equal; "
    note += f"besides, Graft's loop and its loading of a batch took {1000 * statistics.median(steps.between):.1f} ms"
    details = {"seconds": times, "between": steps.between, "losses": {"graft": steps.losses, "bare": bare.losses}}
    return Measured(ratios(times["graft"], times["bare"]), notes=[note], details=details)


def check_losses(ours: Sequence[float], bare: Sequence[float]) -> None:
    """Raise AssertionError where both have not computed the same, step by step."""
    for number, (one, other) in enumerate(zip(ours, bare, strict=True)):
        if not math.isclose(one, other, rel_tol=CLOSE):
            raise AssertionError(f"step {number}: Graft's loss is {one:.6f}, the bare loop's {other:.6f}")


class Bare:
    """A bare loop on copies of a run's parts, `steps_an_epoch` steps an epoch."""

    def __init__(self, experiment: Experiment, name: str, steps_an_epoch: int) -> None:
        module = experiment.module
        self.name = name
        self.backbone, self.head = copy.deepcopy(module.backbone), copy.deepcopy(module.head("target"))
        parts: list[nn.Module] = [self.backbone, self.head]
        if name == "dann":
            self.discriminator = copy.deepcopy(module.terms["dann"].get_submodule("discriminator"))
            parts.append(self.discriminator)
        parameters = [parameter for part in parts for parameter in part.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0, fused=True)
        self.losses: list[float] = []
        self.phases = iter([phase for phase in module.phases(EPOCHS) for _ in range(phase.epochs * steps_an_epoch)])
        self.phase: Phase | None = None
        self.count = EPOCHS * steps_an_epoch

    def step(self, batches: Sequence[Batch]) -> float:
        """CPU seconds of one more step, on its batch of those of all steps."""
        batch, phase = batches[len(self.losses)], next(self.phases)
        if phase is not self.phase:
            self.phase = phase
            freeze(self.backbone.train(), phase)
        started = time.thread_time()
        self.optimizer.zero_grad()
        loss = self.loss_of(batch)
        loss.backward()
        self.optimizer.step()
        took = time.thread_time() - started
        self.losses.append(float(loss.detach()))
        return took

    def loss_of(self, batch: Batch) -> Tensor:
        """What the training minimises."""
        target = batch["target"]
        if self.name not in ("joint", "dann"):
            return F.cross_entropy(self.head(self.backbone(target.inputs)), target.labels)
        source = batch["source"]
        both = self.backbone(torch.cat([part.inputs for part in batch.values()])).split([*map(len, batch.values())])
        features = dict(zip(batch, both, strict=True))
        supervised = F.cross_entropy(self.head(features["source"]), source.labels)
        if self.name == "joint":
            return 0.25 * supervised + 0.75 * F.cross_entropy(self.head(features["target"]), target.labels)
        strength = ramp(len(self.losses) / self.count)
        reversed_ = reverse(torch.cat([features["source"], features["target"]]), strength)
        truth = torch.cat([torch.ones(len(source)), torch.zeros(len(target))])
        return supervised + F.binary_cross_entropy_with_logits(self.discriminator(reversed_), truth)


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
