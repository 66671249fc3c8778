"""V-REx: losses that are equal over the sources (Krueger et al., ICML 2021)."""

import torch
from torch import Tensor

from graft.config.types import Fraction, Natural, NonNegative
from graft.terms.base import TermContext, TrainStep
from graft.terms.generalization.base import OverSources
from graft.terms.requirements import check_at_least


class VREx(OverSources):
    """Variance of the sources' losses, of those that a batch has; `warmup_factor` times it in the first steps.

    The authors reset Adam when the weight rises; the optimizer here goes on.
    """

    name = "vrex"
    steps: Tensor

    def __init__(self, weight: NonNegative = 10.0, warmup_steps: Natural = 500, warmup_factor: Fraction = 0.1) -> None:
        super().__init__()
        check_at_least("vrex.weight", weight, 0)
        check_at_least("vrex.warmup_steps", warmup_steps, 0)
        check_at_least("vrex.warmup_factor", warmup_factor, 0)
        self.weight = weight
        self.warmup_steps = warmup_steps
        self.warmup_factor = warmup_factor

    def prepare(self, context: TermContext) -> None:
        """Begin to count steps."""
        super().prepare(context)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, step: TrainStep) -> Tensor:
        """The variance `mean (R - mean R)^2`."""
        variance = self.risks(step)[1].var(correction=0)
        return torch.where(self.steps < self.warmup_steps, self.warmup_factor, 1.0).to(variance) * variance

    def after_step(self, step: int) -> None:
        """Count."""
        self.steps.fill_(step)
