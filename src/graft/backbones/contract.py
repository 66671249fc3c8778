"""What every backbone has to keep, checked when it is built; and a plain network made into one."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from graft.backbones.base import Backbone, ImageBackbone
from graft.backbones.stages import stages_by_resolution, traced_outputs
from graft.errors import GraftError, first_line

SIZE = 32  # pixels a side of what a plain network is given, where nobody says
MISFITS = (RuntimeError, ValueError, TypeError, IndexError)  # of a network with inputs that it does not take


def check_backbone(backbone: Backbone) -> None:
    """GraftError for a parameter in no stage or in several, and for features of another size than it says."""
    owners = {
        name: [stage.name for stage in backbone.stages if stage.covers(name)] for name, _ in backbone.named_parameters()
    }
    sizes = {name: parameter.numel() for name, parameter in backbone.named_parameters()}
    if stray := [name for name, stages in owners.items() if not stages]:
        raise GraftError(
            f"backbone {backbone.name}: {sum(sizes[name] for name in stray):,} of {sum(sizes.values()):,} parameters "
            f"are in no stage, {stray[0]} first, so that no strategy could freeze them. Its stages are "
            f"{', '.join(stage.name for stage in backbone.stages)}: add the missing names to one of them, or another."
        )
    if shared := [name for name, stages in owners.items() if len(stages) > 1]:
        raise GraftError(
            f"backbone {backbone.name}: {shared[0]} is in several stages, {' and '.join(owners[shared[0]])}. "
            "Each parameter belongs to one."
        )
    shape = output_shape(backbone, backbone.example_inputs(1), backbone.name)
    if shape != (1, backbone.feature_size):
        raise GraftError(
            f"backbone {backbone.name}: it says feature_size={backbone.feature_size}, but one sample gives features of "
            f"the shape {shape}, not (1, {backbone.feature_size}). Features are (B, feature_size)."
        )


def output_shape(network: nn.Module, inputs: Any, name: str) -> tuple[int, ...]:
    """Shape of what a network makes of inputs; GraftError where it cannot take them."""
    try:
        outputs = traced_outputs(network, inputs)
    except MISFITS as error:
        shape = tuple(inputs.shape) if isinstance(inputs, torch.Tensor) else tuple(inputs.tensors)
        raise GraftError(f"backbone {name} cannot take inputs {shape}: {first_line(error)}") from error
    if not outputs or outputs[-1][0]:  # the network itself, named "", finishes last
        raise GraftError(f"backbone {name}: its forward gives no tensor. It has to give features (B, feature_size).")
    return tuple(outputs[-1][1])


def plain_arguments(settings: Mapping[str, Any], image_size: int | None, channels: int) -> dict[str, Any]:
    """Name, size and channels by which `wrap` makes a backbone of a network: the config's keys, else the data's."""
    name = settings.get("name") or settings["_target_"].rpartition(".")[2]
    own = settings.get("channels")
    return {
        "name": name,
        "size": settings.get("size") or image_size or SIZE,
        "channels": own if isinstance(own, int) else channels,  # else `auto`
    }


def wrap(network: nn.Module, name: str, size: int, channels: int) -> ImageBackbone:
    """A network from images `(B, C, H, W)` to features `(B, D)` as a backbone: D measured, stages by resolution.

    Raises GraftError where it does not take such images or puts out something else.
    """
    image = torch.empty(1, channels, size, size)
    shape = output_shape(network, image, name)
    if len(shape) != 2:
        raise GraftError(
            f"backbone {name}: one image gives the shape {shape}, and a backbone has to give features (B, D). "
            "End with a pooling and nn.Flatten."
        )
    layers = [layer for layer, module in network.named_modules() if layer and not any(module.children())]
    if not any(True for _ in network.parameters()):
        raise GraftError(f"backbone {name}: it has no parameters.")
    stages = stages_by_resolution(network, layers, channels, size)
    backbone = ImageBackbone(name, network, size=size, channels=channels, feature_size=shape[1], stages=stages)
    backbone.wrapped = {"name": name, "size": size, "channels": channels}
    return backbone
