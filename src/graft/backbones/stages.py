"""How a network falls into stages: by the resolution of its maps, block by block for transformers."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from graft.backbones.base import Backbone, Stage, prefixes

SMALLER = 0.75  # a side this much below the stage's begins the next stage; convolutions without padding shave off less


def shapes_only(network: nn.Module) -> nn.Module:
    """A copy of the network in eval mode on the meta device: it tells shapes, computes nothing and needs no memory."""
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(tensor): tensor.detach().to("meta") for tensor in tensors}).eval()


def output_shape(network: nn.Module, channels: int, size: int) -> torch.Size:
    """Shape of the network's output for one image."""
    with torch.no_grad():
        return shapes_only(network)(torch.empty(1, channels, size, size, device="meta")).shape


def traced_outputs(module: nn.Module, inputs: Any) -> list[tuple[str, torch.Size]]:
    """Names of the modules and shapes of their outputs for some inputs, in the order in which they finish.

    What is no tensor is left out; a module that runs twice comes twice, one that does not run not at all.
    """
    try:
        return trace_shapes(shapes_only(module), inputs.to("meta"))
    except RuntimeError:  # of code that looks at values, such as whether a mask is all ones
        return trace_shapes(copy.deepcopy(module).eval(), inputs)


def trace_shapes(copied: nn.Module, inputs: Any) -> list[tuple[str, torch.Size]]:
    """Names and output shapes of the modules of a copy, which gets hooks."""
    outputs: list[tuple[str, torch.Size]] = []

    def note(name: str, output: object) -> None:
        if isinstance(output, torch.Tensor):
            outputs.append((name, output.shape))

    for name, module in copied.named_modules():
        module.register_forward_hook(lambda _m, _x, output, name=name: note(name, output))
    with torch.no_grad():
        copied(inputs)
    return outputs


def network_outputs(backbone: Backbone) -> list[tuple[str, torch.Size]]:
    """`traced_outputs` of a backbone's network for one sample, by names in the network."""
    outputs = traced_outputs(backbone, backbone.example_inputs(1))
    return [(name.removeprefix("network").removeprefix("."), s) for name, s in outputs if name.startswith("network")]


def stages_by_resolution(network: nn.Module, units: Sequence[str], channels: int, size: int) -> list[Stage]:
    """Stages of a torchvision network; `units` are the names of its layers and blocks.

    A stage begins where the maps get smaller, and at each block that works on tokens `(B, N, D)`.
    """
    wanted = set(units)
    image = torch.empty(1, channels, size, size, dtype=next(network.parameters()).dtype)
    shapes = {name: shape for name, shape in traced_outputs(network, image) if name in wanted}

    groups: list[list[str]] = []
    stage_side = 0
    for name, shape in shapes.items():  # in the order in which they ran
        unit = network.get_submodule(name)
        parameters = [f"{name}.{key}" for key, _ in unit.named_parameters()]
        if not parameters:
            continue
        side = shape[2] if len(shape) == 4 else 0  # in (B, C, H, W) as in (B, H, W, C)
        smaller = 1 < side <= SMALLER * stage_side
        token_block = len(shape) == 3 and any(unit.children())
        if not groups or smaller or token_block:
            groups.append([])
            stage_side = side
        groups[-1] += parameters
    grouped = {key for group in groups for key in group}
    groups[0][:0] = [key for key, _ in network.named_parameters() if key not in grouped]  # class token, positions
    return stages_from_groups(network, groups)


def stages_from_groups(network: nn.Module, groups: Sequence[Sequence[str]]) -> list[Stage]:
    """Stages from groups of the network's parameter names; a group of nothing but norms joins the one before."""
    sizes = {name: parameter.ndim for name, parameter in network.named_parameters()}
    merged: list[list[str]] = []
    for group in groups:
        if merged and all(sizes[name] <= 1 for name in group):
            merged[-1] += group
        else:
            merged.append(list(group))
    return [_stage(network, group, merged) for group in merged]


def _stage(network: nn.Module, group: Sequence[str], groups: Sequence[Sequence[str]]) -> Stage:
    others = [name for other in groups if other is not group for name in other]
    prefixes = list(dict.fromkeys(_shortest_own_prefix(name, others) for name in group))
    modules = dict(network.named_modules())
    name = next((prefix for prefix in prefixes if prefix in modules), prefixes[0])
    return Stage(name, tuple(f"network.{prefix}" for prefix in prefixes))


def _shortest_own_prefix(name: str, others: Sequence[str]) -> str:
    """The shortest dotted beginning of a parameter's name that no parameter of another stage shares."""
    return next(p for p in prefixes(name) if not any(o == p or o.startswith(f"{p}.") for o in others))
