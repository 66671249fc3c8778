"""BiT-HyperRule: length, schedule, resolution and MixUp from the size of the data (Kolesnikov et al., ECCV 2020)."""

from collections.abc import Callable
from typing import Any, Literal

from graft.backbones.base import Backbone
from graft.strategies.base import Phase, Strategy, stage_names
from graft.training.schedules import Step

SMALL = 500  # steps for less than 20,000 samples
EPOCHS = 10  # an epoch is a tenth of the steps: validation ten times, and the rate falls at an epoch's end


class BitHyperRule(Strategy):
    """Everything trains for as many steps as the number of samples asks for, at one rate; nothing is left to tune.

    `schedule` is the paper's, which falls by ten at 30, 60 and 90 % of the steps, or that of the authors' code, which
    rises before, and of 500 steps falls at 200, 300 and 400.
    """

    own_schedules = True
    needs_pretrained = True

    def __init__(self, train_bn: bool | None = None, schedule: Literal["paper", "code"] = "code") -> None:
        super().__init__(train_bn)
        self.schedule = schedule
        self.steps = 0

    def settings(self, samples: int, image_side: Callable[[], int | None]) -> dict[str, Any]:
        """Steps as `data.epoch` times `training.epochs`, the image size, and MixUp for larger data."""
        self.steps = steps_for(samples)
        decided: dict[str, Any] = {"data.epoch": self.steps // EPOCHS, "training.epochs": EPOCHS}
        if (side := image_side()) is not None:
            decided["data.image_size"] = crop_for(side)
        if samples >= 20_000:
            decided["training.mixup_alpha"] = 0.1
        return decided

    def phases(self, epochs: int, backbone: Backbone) -> list[Phase]:
        """One phase with every stage and the rule's schedule."""
        milestones, warmup = (0.3, 0.6, 0.9), 0.0
        if self.schedule == "code":
            milestones = (0.4, 0.6, 0.8) if self.steps <= SMALL else milestones
            warmup = warmup_for(self.steps) / max(1, self.steps)
        schedule = Step(milestones, 0.1, warmup_fraction=warmup)
        return [self.phase(epochs, backbone, stage_names(backbone), schedule=schedule)]


def steps_for(samples: int) -> int:
    """Optimizer steps for a number of training samples."""
    return SMALL if samples < 20_000 else 10_000 if samples < 500_000 else 20_000


def warmup_for(steps: int) -> int:
    """Steps of linear warm-up, as in the authors' code."""
    return min(500, steps // 5)


def crop_for(image_side: int) -> int:
    """Side in pixels that the network sees: small images are cropped to 128, others to 480."""
    return 128 if image_side <= 96 else 480
