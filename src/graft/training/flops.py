"""Floating-point operations of training: those of matrix products and convolutions, counted on a few samples.

Counted are forward and backward passes of the network through training batches at their full size, and their views: not
the optimizer, validation, further networks of terms, or what the cache of frozen features saves.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from graft.backbones.base import Backbone
from graft.data.module import TransferDataModule
from graft.heads.base import seen_by
from graft.inputs.base import Inputs
from graft.strategies.base import Phase

SAMPLES = 8  # whose mean is taken where lengths differ


def per_epoch(
    backbone: Backbone, heads: Mapping[str, nn.Module], phases: Sequence[Phase], data: TransferDataModule
) -> list[float]:
    """FLOPs of an epoch in each phase, with the head that serves each training domain."""
    drawn = {domain: n * (1 + len(data.views.get(domain, ()))) for domain, n in data.samples_per_epoch.items()}
    with torch.random.fork_rng(devices=()):
        inputs = {domain: data.few_samples(domain, SAMPLES) for domain in drawn}
        return [
            sum(n * of_sample(backbone, heads[domain], phase, inputs[domain]) for domain, n in drawn.items())
            for phase in phases
        ]


def of_fit(
    backbone: Backbone, heads: Mapping[str, nn.Module], phases: Sequence[Phase], data: TransferDataModule
) -> float:
    """FLOPs of all epochs of all phases."""
    by_epoch = per_epoch(backbone, heads, phases, data)
    return sum(phase.epochs * one for phase, one in zip(phases, by_epoch, strict=True))


# Those of a network and its inputs' shape, in this process: the jobs of a sweep have the same.
COUNTED: dict[tuple[object, ...], float] = {}


def of_sample(backbone: Backbone, head: nn.Module, phase: Phase, inputs: Inputs) -> float:
    """FLOPs of a sample's training step in a phase, the mean over the inputs `(B, ...)`."""
    if not isinstance(inputs, Tensor):
        return counted(backbone, head, phase, inputs)
    key = (repr(backbone), repr(head), frozenset(phase.parameters), phase.heads, inputs.shape[1:])
    if key not in COUNTED:
        COUNTED[key] = counted(backbone, head, phase, inputs[:1])  # all of one shape
    return COUNTED[key]


def counted(backbone: Backbone, head: nn.Module, phase: Phase, inputs: Inputs) -> float:
    """The same, counted as they run."""
    with as_in(phase, backbone, head), countable(backbone), FlopCounterMode(display=False) as counter:
        output = head(seen_by(head, backbone, inputs.to(next(head.parameters()).device)))
        if output.requires_grad:
            output.sum().backward()  # not autograd.grad: the counter's hooks do not go with parametrized layers there
    return counter.get_total_flops() / len(inputs)


@contextmanager
def as_in(phase: Phase, backbone: Backbone, head: nn.Module) -> Iterator[None]:
    """What trains in a phase requires gradients inside the block, which are dropped; in eval mode, without updates."""
    modes = {module: module.training for part in (backbone, head) for module in part.modules()}
    needed = {p: (p.requires_grad, p.grad) for part in (backbone, head) for p in part.parameters()}
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name in phase.parameters)
    head.requires_grad_(phase.heads)
    try:
        backbone.eval()
        head.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, (trains, gradient) in needed.items():
            parameter.requires_grad_(trains)
            parameter.grad = gradient


@contextmanager
def countable(network: nn.Module) -> Iterator[None]:
    """Recurrent layers and attention as matrix products inside the block: torch has no count for their fused forms."""
    library: Any = torch.backends.mkldnn
    fused, recurrent = library.enabled, any(isinstance(one, nn.RNNBase) for one in network.modules())
    try:
        library.enabled = fused and not recurrent
        with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            yield
    finally:
        library.enabled = fused
