"""Stochastic Normalization: a BatchNorm that leans on one batch only now and then (Kou et al., NeurIPS 2020)."""

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from graft.config.types import Fraction
from graft.errors import GraftError
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.requirements import check_pretrained
from graft.training.normalization import batchnorms


class Stochastic(_BatchNorm):
    """Mixed into a BatchNorm: in training every channel is normalised by the batch's statistics or by the moving ones.

    `y = s * BN_batch(x) + (1 - s) * BN_moving(x)`, `s ~ Bernoulli(probability)` for each channel at each step. The
    moving statistics are those from before the batch; they follow it as in any BatchNorm.
    """

    probability: float

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(B, C, ...)`; in eval mode as any BatchNorm does."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        mean, var = self.running_mean.clone(), self.running_var.clone()  # the batch branch moves them in place
        by_batch = super().forward(x)
        by_moving = self.after(F.batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps))
        chosen = torch.rand(x.shape[1], device=x.device) < self.probability
        return torch.where(chosen.view(-1, *[1] * (x.ndim - 2)), by_batch, by_moving)

    def after(self, x: Tensor) -> Tensor:
        """What the layer does to its normalised input, channel by channel."""
        return x


class StochNorm1d(Stochastic, nn.BatchNorm1d):
    """Stochastic BatchNorm1d."""


class StochNorm2d(Stochastic, nn.BatchNorm2d):
    """Stochastic BatchNorm2d."""


class StochNorm3d(Stochastic, nn.BatchNorm3d):
    """Stochastic BatchNorm3d."""


class StochNormAct2d(Stochastic, BatchNormAct2d):
    """Stochastic version of timm's BatchNorm with the activation inside."""

    def after(self, x: Tensor) -> Tensor:
        """Dropout and activation."""
        return self.act(self.drop(x))


STOCHASTIC = {
    nn.BatchNorm1d: StochNorm1d,
    nn.BatchNorm2d: StochNorm2d,
    nn.BatchNorm3d: StochNorm3d,
    BatchNormAct2d: StochNormAct2d,
}


def make_stochastic(module: nn.Module, probability: float) -> int:
    """Turn every BatchNorm inside `module` that keeps moving statistics into its stochastic version; returns how many.

    Raises GraftError for a BatchNorm of an unknown class.
    """
    norms = batchnorms(module)
    for norm in norms:
        if type(norm) not in STOCHASTIC:
            known = ", ".join(norm_class.__name__ for norm_class in STOCHASTIC)
            raise GraftError(f"term.stochnorm cannot replace a {type(norm).__name__}. Known: {known}.")
    for norm in norms:
        # Another class for the same object: parameters, buffers, their names and who holds them stay as they are.
        norm.__class__ = STOCHASTIC[type(norm)]
        norm.probability = probability  # type: ignore[assignment]  # of its new class
    return len(norms)


class StochNorm(Term):
    """Replaces the backbone's BatchNorm layers; adds nothing to the loss and does nothing where they are frozen.

    Raises GraftError where the backbone has no BatchNorm.
    """

    needs_pretrained = True
    replaces_batchnorm = True
    weight = 0.0  # there is nothing to weigh

    def __init__(self, probability: Fraction = 0.5) -> None:
        super().__init__()
        if not 0 <= probability <= 1:
            raise GraftError(f"term.stochnorm.probability={probability} must be in [0, 1].")
        self.probability = probability

    def check(self, context: TermContext) -> None:
        """GraftError for a backbone without BatchNorm."""
        if not batchnorms(context.backbone):
            raise GraftError(
                f"term.stochnorm changes BatchNorm layers, but {context.backbone.name} has none. Choose a backbone "
                "with BatchNorm, such as backbone=resnet18, or leave the term out."
            )

    def prepare(self, context: TermContext) -> None:
        """Replace the layers, in place."""
        check_pretrained(context, "stochnorm")
        self.check(context)
        make_stochastic(context.backbone, self.probability)

    def forward(self, step: TrainStep) -> None:
        """Nothing: it acts inside the backbone."""
