"""Parameter groups and the optimizer over them: a group for each part, split by weight decay."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from graft import registry
from graft.build import build
from graft.config.types import Arguments, Given, NonNegative, Positive
from graft.errors import GraftError
from graft.heads.base import BOTTLENECK, has_bottleneck

if TYPE_CHECKING:
    from graft.backbones.base import Backbone

FUSED, FUSED_DEVICES = ("SGD", "Adam", "AdamW"), ("cpu", "cuda")  # classes with fused kernels on these devices
IMPLEMENTATION = {"fused", "foreach", "capturable", "differentiable"}  # options that choose how a step is computed
PEFT_SCALES = ("ia3_l", "lora_magnitude_vector")  # parameters of peft that are vectors in the shape of a matrix


class BaseOptimizerSettings(TypedDict):
    """What is read of any optimizer's keys; `options` are the other arguments of its class."""

    params: Given
    weight_decay: NonNegative
    decay_norms_and_biases: bool
    options: Arguments


class OptimizerSettings(BaseOptimizerSettings):
    """The keys of `optimizer`."""

    lr: Literal["auto", "default"] | Positive


def parts(
    backbone: "Backbone", heads: nn.ModuleDict, terms: Mapping[str, nn.Module]
) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Named parameters by part: `backbone/<stage>` from input to output, then `term/<name>` and `head/<name>`.

    A head's bottleneck is a part `bottleneck/<name>`, before the head.
    """
    named = list(backbone.named_parameters())  # once: walking through a network takes longer than reading names
    by_part = {
        f"backbone/{stage.name}": [(key, p) for key, p in named if stage.covers(key)] for stage in backbone.stages
    }
    by_part |= {
        f"term/{name}": [(key, p) for key, p in term.named_parameters() if p.requires_grad]
        for name, term in terms.items()
    }
    for name, head in heads.items():
        members = list(head.named_parameters())
        inner = has_bottleneck(head)
        by_part[f"{BOTTLENECK}/{name}"] = [(k, p) for k, p in members if inner and k.startswith(f"{BOTTLENECK}.")]
        by_part[f"head/{name}"] = [(k, p) for k, p in members if not (inner and k.startswith(f"{BOTTLENECK}."))]
    return {part: parameters for part, parameters in by_part.items() if parameters}


def by_block(
    by_part: Mapping[str, Sequence[tuple[str, nn.Parameter]]], depths: Mapping[str, int]
) -> tuple[dict[str, list[tuple[str, nn.Parameter]]], dict[str, int]]:
    """The backbone's parts divided by the `depths` of their parameters, and the depth of each of these pieces."""
    pieces: dict[str, list[tuple[str, nn.Parameter]]] = {}
    depth_of = {}
    for part, members in by_part.items():
        for name, parameter in members:
            piece = f"{part}, {depths[name]} below the head" if part.startswith("backbone/") else part
            pieces.setdefault(piece, []).append((name, parameter))
            if piece != part:
                depth_of[piece] = depths[name]
    return pieces, depth_of


def parameter_groups(
    by_part: Mapping[str, Sequence[tuple[str, nn.Parameter]]],
    multipliers: Mapping[str, float],
    lr: float,
    weight_decay: float,
    decay_norms_and_biases: bool = False,
) -> list[dict[str, Any]]:
    """Optimizer groups with `base_lr = lr * multiplier`; norms and biases go without weight decay by default."""
    groups = []
    for part, parameters in by_part.items():
        decayed = [p for name, p in parameters if decay_norms_and_biases or not is_norm_or_bias(name, p)]
        plain = [p for name, p in parameters if not decay_norms_and_biases and is_norm_or_bias(name, p)]
        rate = lr * multipliers.get(part, 1.0)
        for suffix, members, decay in (("", decayed, weight_decay), (" (no decay)", plain, 0.0)):
            if members:
                groups.append(
                    {"name": part + suffix, "params": members, "lr": rate, "base_lr": rate, "weight_decay": decay}
                )
    return groups


def is_norm_or_bias(name: str, parameter: nn.Parameter) -> bool:
    """Norm scales and biases are vectors; class tokens and position embeddings go with them (BEiT practice).

    So do the scales of (IA)^3 and DoRA, which decay would draw away from the pretrained network.
    """
    tokens = name.endswith(("cls_token", "class_token", "pos_embed", "pos_embedding"))
    bias = name.rpartition(".")[2] == "bias"  # also a matrix of them, one for each column of a table
    return parameter.ndim <= 1 or bias or tokens or any(part in PEFT_SCALES for part in name.split("."))


def build_optimizer(
    target: str, groups: list[dict[str, Any]], lr: float, options: Mapping[str, Any], fused: bool = True
) -> Optimizer:
    """An optimizer by its dotted name over the groups, fused where it can be and the options leave it open.

    A fused step goes through all parameters in one kernel, which is faster on CPUs and GPUs alike.
    """
    optimizer_class, name = registry.resolve(target), target.removeprefix("torch.optim.")
    if not (isinstance(optimizer_class, type) and issubclass(optimizer_class, Optimizer)):
        known = ", ".join(registry.OPTIMIZERS)
        raise GraftError(f"optimizer._target_={target} is no optimizer. Those of torch.optim: {known}.")
    own_choice = not fused or name not in FUSED or options.keys() & IMPLEMENTATION or not all_on(FUSED_DEVICES, groups)
    fused_step = {} if own_choice else {"fused": True}
    try:
        return build({**options, registry.TARGET: target}, params=groups, lr=lr, **fused_step)
    except (GraftError, TypeError, ValueError) as error:
        raise GraftError(f"optimizer.options={dict(options)} do not fit {target}: {error}.") from error


def all_on(devices: Sequence[str], groups: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every parameter is a real number on one of the kinds of devices."""
    return all(p.device.type in devices and p.is_floating_point() for group in groups for p in group["params"])


def match_layout(optimizer: Optimizer) -> None:
    """Lay the optimizer's state out in memory as its parameters, where a checkpoint's was laid out otherwise.

    Fused kernels go through parameter, gradient and state side by side in memory; on the CPU they do not look whether
    the strides agree, and step in wrong directions where they do not.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
