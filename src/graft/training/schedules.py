"""Learning-rate schedules as tables: a factor for every optimizer step, a pure function of the step.

torch's schedulers are walked once over a dummy optimizer, so that their behaviour is theirs to the digit, while a
phase of a strategy can have its own schedule and a resumed run needs no scheduler state.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import torch
from annotated_types import Interval
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
)

from graft.config.types import Fraction, Natural, NonNegative, Positive
from graft.errors import GraftError

if TYPE_CHECKING:
    from graft.strategies.base import Phase


class Point(NamedTuple):
    """What one step of a schedule sets."""

    factor: float  # learning rate over the group's full rate
    momentum: float | None  # None: as the optimizer has it


@dataclass
class Pace:
    """Where in the schedule a step is, where that is not how many steps came before: a federation's clients in turn."""

    steps_per_round: int = 0
    total: int = 0  # points of the schedule
    step: int = 0


class AveragingWindow(NamedTuple):
    """The last epochs of a run, at a rate of their own."""

    first_epoch: int  # from 0
    factor: float | None  # learning rate over the full rate, the same in every step; None: the schedule goes on

    def check(self, phases: Sequence["Phase"]) -> None:
        """GraftError where these epochs are in more than one of a strategy's schedules."""
        starts = [sum(p.epochs for p in phases[:i]) for i, phase in enumerate(phases) if i == 0 or phase.restarts]
        epochs = sum(phase.epochs for phase in phases)
        if self.first_epoch < starts[-1]:
            raise GraftError(
                f"averaging=swa would begin at epoch {self.first_epoch + 1} and average over two phases of the "
                f"strategy, of which the last begins at epoch {starts[-1] + 1} of {epochs}. "
                f"Set averaging.start_fraction={math.ceil(100 * starts[-1] / epochs) / 100} or more."
            )


def hold(points: Sequence[Point], start: int, factor: float) -> list[Point]:
    """A schedule that stands still from a step on, at its own learning rate."""
    return [*points[:start], *(points[start]._replace(factor=factor) for _ in points[start:])]


def walk(make: Callable[[Optimizer], LRScheduler], steps: int, cycles_momentum: bool = False) -> list[Point]:
    """Table of `steps` points that a torch scheduler goes through from learning rate 1."""
    optimizer = SGD([torch.zeros((), requires_grad=True)], lr=1.0, momentum=0.9)
    scheduler = make(optimizer)
    points = []
    for number in range(steps):
        if number:  # not after the last point: OneCycleLR refuses to be stepped past its end
            optimizer.step()
            scheduler.step()
        group = optimizer.param_groups[0]
        points.append(Point(float(group["lr"]), group["momentum"] if cycles_momentum else None))
    return points


def with_warmup(
    warmup_fraction: float, steps: int, main: Callable[[Optimizer, int], LRScheduler]
) -> Callable[[Optimizer], LRScheduler]:
    """Linear warm-up over a fraction of the steps, then `main` over the rest."""
    warmup = min(round(warmup_fraction * steps), steps - 1)
    if warmup == 0:
        return lambda optimizer: main(optimizer, steps)

    def make(optimizer: Optimizer) -> LRScheduler:
        rise = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
        return SequentialLR(optimizer, [rise, main(optimizer, steps - warmup)], milestones=[warmup])

    return make


class Constant:
    """The rate stays, after an optional warm-up."""

    def __init__(self, warmup_fraction: Fraction = 0.0) -> None:
        self.warmup_fraction = warmup_fraction

    def table(self, steps: int) -> list[Point]:
        """A point a step."""
        return walk(with_warmup(self.warmup_fraction, steps, lambda o, n: ConstantLR(o, factor=1.0)), steps)


class Cosine:
    """Linear warm-up, then half a cosine down to `final_fraction` of the full rate."""

    def __init__(self, warmup_fraction: Fraction = 0.1, final_fraction: Fraction = 0.0) -> None:
        self.warmup_fraction = warmup_fraction
        self.final_fraction = final_fraction

    def table(self, steps: int) -> list[Point]:
        """A point a step."""

        def cosine(optimizer: Optimizer, n: int) -> LRScheduler:
            return CosineAnnealingLR(optimizer, T_max=n, eta_min=self.final_fraction)

        return walk(with_warmup(self.warmup_fraction, steps, cosine), steps)


class Inverse:
    """`(1 + gamma p) ** -power`, p the fraction of the steps that is done (Ganin et al., JMLR 2016)."""

    def __init__(self, gamma: NonNegative = 10.0, power: NonNegative = 0.75, warmup_fraction: Fraction = 0.0) -> None:
        self.gamma = gamma
        self.power = power
        self.warmup_fraction = warmup_fraction

    def table(self, steps: int) -> list[Point]:
        """A point a step."""

        def inverse(optimizer: Optimizer, n: int) -> LRScheduler:
            return LambdaLR(optimizer, lambda step: (1 + self.gamma * step / n) ** -self.power)

        return walk(with_warmup(self.warmup_fraction, steps, inverse), steps)


class OneCycle:
    """Up and down once, momentum the other way (Smith, 2018, "Super-convergence")."""

    def __init__(
        self, warmup_fraction: Fraction = 0.3, div_factor: Positive = 25.0, final_div_factor: Positive = 1e4
    ) -> None:
        self.warmup_fraction = float(warmup_fraction)  # OneCycleLR refuses 0 and 1 as integers
        self.div_factor = div_factor
        self.final_div_factor = final_div_factor

    def table(self, steps: int) -> list[Point]:
        """A point a step."""

        total = max(2, steps)  # of a single step, the first
        # OneCycleLR divides by zero where the rise is exactly one step.
        rise = self.warmup_fraction if self.warmup_fraction * total != 1 else self.warmup_fraction * 1.01

        def one_cycle(optimizer: Optimizer) -> LRScheduler:
            return OneCycleLR(
                optimizer,
                max_lr=1.0,
                total_steps=total,
                pct_start=rise,
                div_factor=self.div_factor,
                final_div_factor=self.final_div_factor,
            )

        return walk(one_cycle, steps, cycles_momentum=True)


class Step:
    """The rate falls by `factor` at fractions of training, after an optional warm-up."""

    def __init__(
        self,
        milestones: Sequence[Annotated[float, Interval(gt=0, lt=1)]] = (0.3, 0.6, 0.9),
        factor: Positive = 0.1,
        warmup_fraction: Fraction = 0.0,
    ) -> None:
        if not all(0 < fraction < 1 for fraction in milestones):
            raise GraftError(
                f"scheduler.milestones={list(milestones)}: must be fractions of training between 0 and 1, such as "
                "[0.3, 0.6, 0.9], not epochs or steps."
            )
        if milestones and warmup_fraction >= min(milestones):
            raise GraftError(
                f"scheduler.warmup_fraction={warmup_fraction} must end before the first of scheduler.milestones, "
                f"{min(milestones)}."
            )
        self.milestones = milestones
        self.factor = factor
        self.warmup_fraction = warmup_fraction

    def table(self, steps: int) -> list[Point]:
        """A point a step."""

        def step(optimizer: Optimizer, n: int) -> LRScheduler:
            milestones = [round(fraction * steps) - (steps - n) for fraction in self.milestones]
            return MultiStepLR(optimizer, milestones, gamma=self.factor)

        return walk(with_warmup(self.warmup_fraction, steps, step), steps)


class Plateau:
    """The rate falls when the monitored metric stops getting better; driven by validation, so it has no table."""

    follows_metric = True

    def __init__(self, factor: Positive = 0.1, patience_epochs: Natural = 3) -> None:
        self.factor = factor
        self.patience_epochs = patience_epochs

    def table(self, steps: int) -> None:
        """No table: torch's ReduceLROnPlateau follows the metric."""
        return

    def scheduler(
        self, optimizer: Optimizer, mode: Literal["min", "max"]
    ) -> torch.optim.lr_scheduler.ReduceLROnPlateau:
        """torch's own scheduler for Lightning to step with the selection rule's metric."""
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, mode=mode, factor=self.factor, patience=self.patience_epochs
        )
