"""What an objective is: weights of the source's and the target's loss over training."""

from collections.abc import Mapping
from typing import cast

from torch import Tensor


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
        return cast(Tensor, sum(weights[domain] * loss for domain, loss in losses.items()))
