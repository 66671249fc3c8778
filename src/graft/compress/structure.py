"""The shapes of a pruned network: which tensors are smaller, and how a whole network is made so again.

Nothing but shapes has to be kept: which channels were left out is in the weights that go with them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from graft.errors import GraftError

Shapes = dict[str, list[int]]
RESIZABLE = (nn.Conv1d, nn.Conv2d, nn.Linear, _BatchNorm)  # layers whose attributes follow from their tensors' shapes


def shapes_of(network: nn.Module) -> Shapes:
    """Shape of every tensor in a network's state, by name."""
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items()}


def changed_shapes(before: Mapping[str, Sequence[int]], network: nn.Module) -> Shapes:
    """Shapes that are others than before, by name."""
    return {name: shape for name, shape in shapes_of(network).items() if shape != list(before[name])}


def resize(network: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
    """Give tensors of a whole network these shapes; their values are to be loaded. GraftError for what is no layer's.

    A convolution with one group a channel keeps that.
    """
    modules: dict[str, Any] = dict(network.named_modules())
    by_layer: dict[str, list[str]] = {}
    for name in shapes:
        layer, _, tensor = name.rpartition(".")
        if not isinstance(modules.get(layer), RESIZABLE) or not hasattr(modules[layer], tensor):
            raise GraftError(f"This network has no layer {layer!r} whose {tensor} could be {list(shapes[name])}.")
        by_layer.setdefault(layer, []).append(name)
    for layer, names in by_layer.items():
        module = modules[layer]
        depthwise = isinstance(module, _ConvNd) and module.groups == module.in_channels > 1
        for name in names:
            tensor = name.rpartition(".")[2]
            value = getattr(module, tensor)
            new = value.new_zeros(tuple(shapes[name]))
            setattr(module, tensor, nn.Parameter(new) if isinstance(value, nn.Parameter) else new)
        set_attributes(module, depthwise)


def set_attributes(module: Any, depthwise: bool) -> None:
    """Let a layer's own numbers agree with its tensors."""
    if isinstance(module, _ConvNd):
        module.out_channels = module.weight.shape[0]
        module.groups = module.out_channels if depthwise else module.groups
        module.in_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    else:
        module.num_features = len(module.weight if module.weight is not None else module.running_mean)
