"""Gradient reversal: what comes before learns the opposite of what comes after (Ganin et al., JMLR 2016)."""

import math
from dataclasses import replace
from typing import Any, overload

import torch
from torch import Tensor

from graft.backbones.outputs import Tokens


class Reversal(torch.autograd.Function):
    """The identity, whose gradient is that of `-strength * x`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        """`x` itself."""
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The gradient with its sign changed."""
        return -ctx.strength * gradient, None


@overload
def reverse(x: Tensor, strength: float) -> Tensor: ...
@overload
def reverse(x: Tensor | Tokens, strength: float) -> Tensor | Tokens: ...
def reverse(x: Tensor | Tokens, strength: float) -> Tensor | Tokens:
    """`x`, through which gradients go back with their sign changed and scaled by `strength`."""
    if isinstance(x, Tokens):
        return replace(x, values=reverse(x.values, strength), features=None)
    return Reversal.apply(x, strength)


def ramp(progress: float) -> float:
    """Rises from 0 to nearly 1 over training: 2 / (1 + exp(-10 progress)) - 1; .5 after 11 % of the steps."""
    return 2 / (1 + math.exp(-10 * progress)) - 1
