"""Mean Teacher: predictions shall be those of the weights' moving average (Tarvainen and Valpola, NeurIPS 2017)."""

import copy
import math
from typing import cast

import torch
from torch import Tensor, nn

from graft.backbones.base import Backbone
from graft.config.types import Fraction, FractionBelowOne, NonNegative
from graft.errors import GraftError
from graft.heads.base import seen_by
from graft.inputs.base import Inputs
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.requirements import check_at_least, check_classes


def ramp(progress: float, length: float) -> float:
    """Rises from exp(-5) to 1 over the first `length` of training: exp(-5 (1 - progress / length)^2)."""
    return math.exp(-5 * (1 - progress / length) ** 2) if progress < length else 1.0


class MeanTeacher(Term):
    """Mean squared difference of the class probabilities of the network and of a teacher on another view.

    The teacher is the moving average of the backbone's and target head's weights after every step. As in the authors'
    code it runs in training mode with BatchNorm statistics of its own, and its average is a plain mean until
    `1 - 1 / (step + 1)` reaches the decay. Target samples need no labels. Raises GraftError without classes.
    """

    needs_multiclass = True
    domains = ("target",)
    views = ("weak",)

    def __init__(
        self, weight: NonNegative = 1.0, decay: FractionBelowOne = 0.99, ramp_up_fraction: Fraction = 0.25
    ) -> None:
        super().__init__()
        check_at_least("mean_teacher.weight", weight, 0)
        if not 0 <= decay < 1:
            raise GraftError(f"term.mean_teacher.decay={decay} is out of range: it must be at least 0 and below 1.")
        if not 0 <= ramp_up_fraction <= 1:
            raise GraftError(f"term.mean_teacher.ramp_up_fraction={ramp_up_fraction} must be in [0, 1].")
        self.weight = weight
        self.decay = decay
        self.ramp_up_fraction = ramp_up_fraction

    def prepare(self, context: TermContext) -> None:
        """Make the teacher, which begins as the network."""
        check_classes(context, "mean_teacher")
        self.teacher = nn.ModuleList(copy.deepcopy([context.backbone, context.target_head])).requires_grad_(False)
        self._student = (context.backbone, context.target_head)  # in a tuple, so that they are no parts of this module

    def forward(self, step: TrainStep) -> Tensor:
        """The consistency on the step's target samples, ramped up."""
        taught = self.teach(step.batch["target"].views["weak"])
        consistency = (step.logits["target"].softmax(dim=1) - taught).square().mean()
        return ramp(step.progress, self.ramp_up_fraction) * consistency

    @torch.no_grad()
    def teach(self, inputs: Inputs) -> Tensor:
        """The teacher's class probabilities `(B, K)`."""
        backbone, head = self.teacher
        for own, trained in zip(self.teacher, self._student, strict=True):
            modes = {name: module.training for name, module in trained.named_modules()}
            for name, module in own.named_modules():
                module.training = modes[name]  # what a strategy froze is frozen in both
        return head(seen_by(head, cast(Backbone, backbone), inputs)).softmax(dim=1)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the teacher towards the network."""
        decay = min(1 - 1 / (step + 1), self.decay)
        for own, trained in zip(self.teacher, self._student, strict=True):
            for average, parameter in zip(own.parameters(), trained.parameters(), strict=True):
                average.lerp_(parameter, 1 - decay)
