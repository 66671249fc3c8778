"""What server and clients send each other: tensors of the network by name, and how many bytes they are."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import get_total_norm

Message = Mapping[str, Tensor]
PARTS = ("backbone.", "heads.")


def exchanged(module: nn.Module) -> list[str]:
    """Names of what training changes now: parameters that train, and statistics of BatchNorm that is in training."""
    names = [
        name for name, parameter in module.named_parameters() if parameter.requires_grad and name.startswith(PARTS)
    ]
    for name, layer in module.named_modules():
        if isinstance(layer, _BatchNorm) and layer.training and layer.track_running_stats and name.startswith(PARTS):
            names += [f"{name}.running_mean", f"{name}.running_var"]
    return names


def names_of_batchnorm(module: nn.Module) -> frozenset[str]:
    """Names of the parameters and statistics of every BatchNorm."""
    return frozenset(
        f"{name}.{own}"
        for name, layer in module.named_modules()
        if isinstance(layer, _BatchNorm)
        for own in ("weight", "bias", "running_mean", "running_var")
    )


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, as they are in the module."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def taken(module: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Copies of tensors of the module."""
    tensors = tensors_of(module)
    return {name: tensors[name].detach().clone() for name in names}


@torch.no_grad()
def put(module: nn.Module, message: Message) -> None:
    """Write tensors into the module, in place."""
    tensors = tensors_of(module)
    for name, value in message.items():
        tensors[name].copy_(value)


def size_of(message: Iterable[Tensor]) -> int:
    """Bytes of the tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in message)


def is_finite(message: Message) -> bool:
    """Whether no tensor holds NaN or infinity."""
    return not message or math.isfinite(float(get_total_norm(list(message.values()), math.inf)))


def average(answers: Mapping[int, Message], weights: Mapping[int, float]) -> dict[str, Tensor]:
    """The mean of the clients' messages, each with its weight; summed in double precision."""
    total = sum(weights[client] for client in answers)
    found: dict[str, Tensor] = {}
    for client, message in answers.items():
        for name, value in message.items():
            wide = torch.float32 if value.device.type == "mps" else torch.float64
            part = value.to(wide) * (weights[client] / total)
            found[name] = found[name] + part if name in found else part
    first = next(iter(answers.values()))
    return {name: value.to(first[name].dtype) for name, value in found.items()}
