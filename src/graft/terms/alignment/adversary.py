"""A domain discriminator, and gradients that are reversed on their way from it (Ganin et al., JMLR 2016)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Reversal(torch.autograd.Function):
    """Passes values on as they are, and gradients times minus a strength."""

    @staticmethod
    def forward(context: Any, values: Tensor, strength: float) -> Tensor:
        """The values."""
        context.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient, reversed."""
        return -context.strength * gradients[0], None


def reversed_gradient(values: Tensor, strength: float) -> Tensor:
    """The values, whose gradients come back times minus `strength`."""
    return Reversal.apply(values, strength)


def ramp(progress: float) -> float:
    """Strength of the reversal `2 / (1 + exp(-10 p)) - 1`: from 0 to 1 over training."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


def discriminator(size: int, hidden: int) -> nn.Sequential:
    """Logits `(B, 1)` of coming from the source, from vectors `(B, size)`, through two hidden layers."""
    return nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))


def domain_loss(
    network: nn.Module, source: Tensor, target: Tensor, weights: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Cross entropy of telling source `(B, D)` from target samples, half from each; `log 2` where it cannot be told.

    `weights` are `(B,)` of each domain's samples, of mean 1.
    """
    logits = network(torch.cat([source, target])).squeeze(1).split([len(source), len(target)])
    losses = (F.softplus(-logits[0]), F.softplus(logits[1]))  # -log sigmoid, -log(1 - sigmoid)
    if weights is not None:
        losses = (losses[0] * weights[0], losses[1] * weights[1])
    return (losses[0].mean() + losses[1].mean()) / 2
