"""Input adaptation: weights for another number of channels than they were trained on."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def adapt_input_conv(weight: Tensor, channels: int) -> Tensor:
    """Input weights `(O, I, ...)` for `channels` inputs instead of I.

    Down to one channel they are summed: a grey image then gives what the same image repeated over I channels gave.
    Otherwise they are repeated and scaled by I / channels, which keeps the size of the activations.
    """
    inputs = weight.shape[1]
    if channels == inputs:
        return weight
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeats = -(-channels // inputs)
    return torch.cat([weight] * repeats, dim=1)[:, :channels] * (inputs / channels)


def spread_over_channels(values: Sequence[float], channels: int) -> Tensor:
    """Values per channel `(C,)`; another number of channels gets their average."""
    tensor = torch.tensor(values, dtype=torch.float64)
    return tensor if len(tensor) == channels else tensor.mean().repeat(channels)


def replace_input_convolution(network: nn.Module, name: str, channels: int) -> None:
    """Give the network's first convolution another number of input channels, drawn as widely as its own weights."""
    old = network.get_submodule(name)
    assert isinstance(old, nn.Conv2d)
    old_sizes: Any = old  # torch types its pairs of sizes as tuples of any length
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old_sizes.kernel_size,
        old_sizes.stride,
        old_sizes.padding,
        old_sizes.dilation,
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
    )
    with torch.no_grad():
        new.weight.normal_(0, old.weight.std().item() * (old.in_channels / channels) ** 0.5)
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, new)
