"""How the losses of the two domains make one: alpha-weighted, alpha scheduled, or additive."""

import math
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from graft.config.types import Fraction, NonNegative
from graft.errors import GraftError

SCHEDULES = ("linear", "cosine", "step")


class Objective:
    """Weights of the source's and the target's loss at a point of training."""

    fixed_heads: tuple[str, ...] = ()

    def weights(self, progress: float) -> dict[str, float]:
        """Weight of each domain's loss; `progress` in [0, 1] is the fraction of training done."""
        raise NotImplementedError

    def domains(self) -> tuple[str, ...]:
        """Domains that ever have a weight above 0: the others are not loaded and not run forward."""
        points = [self.weights(i / 100) for i in range(101)]
        return tuple(domain for domain in ("source", "target") if any(p[domain] > 0 for p in points))

    def __call__(self, losses: Mapping[str, Tensor], progress: float) -> Tensor:
        """Weighted sum of the mean losses of the domains that have one."""
        weights = self.weights(progress)
        return sum(weights[domain] * loss for domain, loss in losses.items())


class AlphaWeighted(Objective):
    """`L = alpha * L_source + (1 - alpha) * L_target`, alpha constant or scheduled over training."""

    def __init__(
        self,
        alpha: Fraction = 0.0,
        alpha_end: Fraction | None = None,
        schedule: Literal[SCHEDULES] = "linear",
        step_at: Fraction = 0.5,
    ) -> None:
        for key, value in (("alpha", alpha), ("alpha_end", alpha_end), ("step_at", step_at)):
            if value is not None and not 0 <= value <= 1:
                raise GraftError(f"objective.{key}={value} is out of range: it must be in [0, 1].")
        if schedule not in SCHEDULES:
            raise GraftError(f"objective.schedule={schedule!r} is not known. Allowed: {', '.join(SCHEDULES)}.")
        self.start = alpha
        self.end = alpha if alpha_end is None else alpha_end
        self.schedule = schedule
        self.step_at = step_at

    def alpha(self, progress: float) -> float:
        """Weight of the source at `progress` in [0, 1]."""
        if self.start == self.end:
            return self.start
        if self.schedule == "step":
            return self.start if progress < self.step_at else self.end
        way = progress if self.schedule == "linear" else (1 - math.cos(math.pi * progress)) / 2
        return (1 - way) * self.start + way * self.end

    def weights(self, progress: float) -> dict[str, float]:
        """Alpha for the source, the rest for the target."""
        alpha = self.alpha(progress)
        return {"source": alpha, "target": 1 - alpha}


class AdditiveTransfer(Objective):
    """`L = L_source + weight * L_target` over the backbone and both heads (full transfer)."""

    def __init__(self, weight: NonNegative = 1.0) -> None:
        self.weight = weight

    def weights(self, progress: float) -> dict[str, float]:
        """One for the source, `weight` for the target."""
        return {"source": 1.0, "target": self.weight}


class AdditiveRetraining(Objective):
    """`L = L_target + weight * L_source`: the backbone moves, the source head stays as pretrained."""

    fixed_heads = ("source",)

    def __init__(self, weight: NonNegative = 1.0) -> None:
        self.weight = weight

    def weights(self, progress: float) -> dict[str, float]:
        """One for the target, `weight` for the source."""
        return {"source": self.weight, "target": 1.0}
