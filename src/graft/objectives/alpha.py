"""`L = alpha * L_source + (1 - alpha) * L_target`, alpha constant or scheduled."""

import math
from typing import Literal, get_args

from graft.config.types import Fraction
from graft.errors import GraftError
from graft.objectives.base import Objective

Schedule = Literal["linear", "cosine", "step"]
SCHEDULES = get_args(Schedule)


class AlphaWeighted(Objective):
    """`L = alpha * L_source + (1 - alpha) * L_target`, alpha constant or scheduled over training.

    With alpha None there is no loss of labels at all: the terms alone train.
    """

    def __init__(
        self,
        alpha: Fraction | None = 0.0,
        alpha_end: Fraction | None = None,
        schedule: Schedule = "linear",
        step_at: Fraction = 0.5,
    ) -> None:
        for key, value in (("alpha", alpha), ("alpha_end", alpha_end), ("step_at", step_at)):
            if value is not None and not 0 <= value <= 1:
                raise GraftError(f"objective.{key}={value} is out of range: it must be in [0, 1].")
        if schedule not in SCHEDULES:
            raise GraftError(f"objective.schedule={schedule!r} is not known. Allowed: {', '.join(SCHEDULES)}.")
        if alpha is None and alpha_end is not None:
            raise GraftError(f"objective.alpha=null objective.alpha_end={alpha_end}: without a start there is no end.")
        self.supervised = alpha is not None
        self.start = alpha or 0.0
        self.end = self.start if alpha_end is None else alpha_end
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
        if not self.supervised:
            return {"source": 0.0, "target": 0.0}
        alpha = self.alpha(progress)
        return {"source": alpha, "target": 1 - alpha}
