"""Optimizer steps with a rate and a weight decay for every job, in the order of torch's single-tensor steps.

torch's own take one rate for all that a parameter holds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Adam:
    """torch.optim.Adam, and AdamW where the decay is decoupled from the gradient."""

    def __init__(self, parameters: Sequence[Tensor], options: Mapping[str, Any], *, decoupled: bool) -> None:
        self.parameters = [parameter.detach() for parameter in parameters]
        self.beta1, self.beta2 = options["betas"]
        self.eps = options["eps"]
        self.decoupled = decoupled
        self.steps = 0
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in self.parameters]

    def step(
        self, gradients: Sequence[Tensor], rates: Sequence[Tensor], decays: Sequence[Tensor], momentum: Tensor | None
    ) -> None:
        """One step: of every parameter `(S, R, ...)` its gradient, and rates and decays `(S, R)` in double precision.

        `momentum` `(S, R)` takes the place of the first beta where the schedule cycles it; NaN: as the options have it.
        """
        self.steps += 1
        beta1 = or_option(momentum, self.beta1, rates[0])
        correction1, correction2 = 1 - beta1**self.steps, 1 - self.beta2**self.steps
        for p, g, m, v, rate, decay in zip(
            self.parameters, gradients, self.means, self.squares, rates, decays, strict=True
        ):
            if self.decoupled:
                p.mul_(fitted(1 - rate * decay, p))
            else:
                g = g + fitted(decay, p) * p
            m.lerp_(g, fitted(1 - beta1, p))
            v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
            denominator = (v.sqrt() / correction2**0.5).add_(self.eps)
            p.sub_(fitted(rate / correction1, p) * (m / denominator))


class SGD:
    """torch.optim.SGD."""

    def __init__(self, parameters: Sequence[Tensor], options: Mapping[str, Any]) -> None:
        self.parameters = [parameter.detach() for parameter in parameters]
        self.momentum, self.dampening = options["momentum"], options["dampening"]
        self.nesterov = options["nesterov"]
        self.buffers: list[Tensor] = []

    def step(
        self, gradients: Sequence[Tensor], rates: Sequence[Tensor], decays: Sequence[Tensor], momentum: Tensor | None
    ) -> None:
        """As that of `Adam`."""
        steps = [g + fitted(decay, p) * p for p, g, decay in zip(self.parameters, gradients, decays, strict=True)]
        cycled = or_option(momentum, self.momentum, rates[0])
        if bool((cycled != 0).any()):
            first, self.buffers = not self.buffers, self.buffers or [step.clone() for step in steps]
            for p, buffer, step in zip(self.parameters, self.buffers, steps, strict=True):
                if not first:
                    buffer.mul_(fitted(cycled, p)).add_(step, alpha=1 - self.dampening)
            steps = [
                step + fitted(cycled, p) * buffer if self.nesterov else buffer
                for p, buffer, step in zip(self.parameters, self.buffers, steps, strict=True)
            ]
        for p, step, rate in zip(self.parameters, steps, rates, strict=True):
            p.sub_(fitted(rate, p) * step)


def build(target: str, parameters: Sequence[Tensor], options: Mapping[str, Any]) -> Adam | SGD:
    """The stacked form of one of torch's optimizers, which knows the defaults of its options."""
    name = target.rpartition(".")[2]
    settings = getattr(torch.optim, name)([torch.zeros(1)], lr=1.0, **options).defaults
    return SGD(parameters, settings) if name == "SGD" else Adam(parameters, settings, decoupled=name == "AdamW")


def or_option(momentum: Tensor | None, option: float, like: Tensor) -> Tensor:
    """The momentum of every job `(S, R)`: the schedule's where it has one."""
    own = torch.full_like(like, option)
    return own if momentum is None else torch.where(momentum.isnan(), own, momentum)


def fitted(values: Tensor, parameter: Tensor) -> Tensor:
    """A value a job `(S, R)` in the type and with the dimensions of a parameter `(S, R, ...)`."""
    return values.to(parameter.dtype).view(*values.shape, *(1,) * (parameter.ndim - values.ndim))
