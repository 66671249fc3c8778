"""Gradient checkpointing: less memory for one forward pass more (Chen et al., 2016, "Sublinear memory cost")."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from graft.backbones.base import Backbone
from graft.backbones.residual import residual_blocks
from graft.errors import GraftError


def checkpoint_gradients(backbone: Backbone) -> None:
    """Keep only the inputs of the residual blocks for the backward pass, and compute the rest again there, in place.

    A network without such blocks is cut where it lists its layers, as encoders of texts do, or by its stages. Values,
    gradients, running statistics, random numbers and names are those of the network as it was. Inside of a block a
    forward hook runs again in the backward pass.
    Raises GraftError for a network that has neither blocks nor a sequence to cut.
    """
    blocks = residual_blocks(backbone.network) or listed_layers(backbone.network)
    for block in blocks:
        # A partial of a bound method, as a deep copy of the block then runs the copy; a closure would run the original.
        block.forward = partial(recomputed, block.forward, (block,))
    sequences = [] if blocks else outermost_sequences(backbone)
    for sequence, parts in sequences:
        sequence.forward = partial(run_parts, sequence, parts)  # type: ignore[method-assign]  # of this one alone
    if not blocks and not sequences:
        raise GraftError(
            f"training.gradient_checkpointing=true: {backbone.name} has neither residual blocks nor a list or sequence "
            "of layers whose parts could be computed again. Set training.gradient_checkpointing=false."
        )


def listed_layers(network: nn.Module) -> list[nn.Module]:
    """Members of the lists of modules that are not inside another."""
    inside = [[*child] if isinstance(child, nn.ModuleList) else listed_layers(child) for child in network.children()]
    return [layer for layers in inside for layer in layers]


def outermost_sequences(backbone: Backbone) -> list[tuple[nn.Sequential, list[list[str]]]]:
    """Sequences that are not inside another, each with the names of its members, grouped by their stage."""
    stages = backbone.module_stages()
    found: list[tuple[nn.Sequential, list[list[str]]]] = []
    inside: tuple[str, ...] = ()
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Sequential) and len(module) and not name.startswith(inside):
            inside = (*inside, f"{name}.")
            staged = [(stages.get(f"{name}.{member}"), member) for member in module._modules]
            groups = groupby(staged, key=itemgetter(0))
            found.append((module, [[member for _, member in group] for _, group in groups]))
    return found


def run_parts(sequence: nn.Sequential, parts: Sequence[Sequence[str]], x: Tensor) -> Tensor:
    """A sequence's forward that keeps the inputs of its parts."""
    for names in parts:
        members = [sequence.get_submodule(name) for name in names]
        x = recomputed(partial(run_members, members), members, x)
    return x


def run_members(members: Sequence[nn.Module], x: Tensor) -> Tensor:
    """One module after the other."""
    for member in members:
        x = member(x)
    return x


def recomputed(forward: Callable[..., Tensor], modules: Sequence[nn.Module], *inputs: Any, **options: Any) -> Tensor:
    """`forward(*inputs, **options)`, the work of `modules`, with its inputs alone kept for the backward pass."""
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)
    then = BuffersOfNow(modules)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), then), **options)


class BuffersOfNow(AbstractContextManager):
    """While it is entered, modules work on copies of the buffers they had when it was made.

    Running statistics would else move twice, and a layer that reads them would see others the second time.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.owners = [owner for module in modules for owner in module.modules() if owner._buffers]
        self.then = [copies(owner._buffers) for owner in self.owners]
        self.now: list[dict[str, Tensor | None]] = []

    def __enter__(self) -> None:
        self.now = [owner._buffers for owner in self.owners]
        for owner, buffers in zip(self.owners, self.then, strict=True):
            owner._buffers = copies(buffers)

    def __exit__(self, *_: object) -> None:
        for owner, buffers in zip(self.owners, self.now, strict=True):
            owner._buffers = buffers


def copies(buffers: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    """Copies of a module's buffers."""
    return {name: None if buffer is None else buffer.clone() for name, buffer in buffers.items()}
