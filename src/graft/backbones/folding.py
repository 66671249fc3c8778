"""Folding BatchNorm into the layer before it: a frozen network computes the same with fewer passes over its maps."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

TOLERANCE = 1e-4  # largest difference over the largest value that rounding may make


def fold_batchnorm(module: nn.Module, inputs: Any) -> nn.Module:
    """A copy in eval mode without the BatchNorms that follow a convolution or linear layer; itself if there are none.

    What follows what is seen by running `inputs` through the copy. Where a layer's output is used elsewhere too the
    values would differ: then nothing is folded.
    """
    if not any(isinstance(part, _BatchNorm) for part in module.modules()):
        return module
    folded = copy.deepcopy(module).eval().requires_grad_(False)
    expected, pairs = followers(folded, inputs)
    for layer_name, norm_name in pairs:
        layer, norm = folded.get_submodule(layer_name), folded.get_submodule(norm_name)
        assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear)
        assert isinstance(norm, _BatchNorm)
        if isinstance(layer, nn.Linear):
            folded.set_submodule(layer_name, fuse_linear_bn_eval(layer, norm))
        else:
            folded.set_submodule(layer_name, fuse_conv_bn_eval(layer, norm))
        # timm's BatchNorms hold the dropout and activation that come after them
        rest = [part for name in ("drop", "act") if (part := getattr(norm, name, None)) is not None]
        folded.set_submodule(norm_name, nn.Sequential(*rest) if rest else nn.Identity())
    with torch.no_grad():
        return folded if same(folded(inputs), expected) else module


def followers(module: nn.Module, inputs: Any) -> tuple[Tensor, list[tuple[str, str]]]:
    """The module's output, and (layer, BatchNorm) by name wherever one gets just what the other gave."""
    outputs: dict[int, tuple[str, Tensor]] = {}  # the tensors are kept, so that no id comes twice
    pairs, hooks = [], []

    def note_output(name: str, output: Tensor) -> None:
        outputs[id(output)] = (name, output)

    def note_input(name: str, given: tuple[Tensor, ...]) -> None:
        if id(given[0]) in outputs:
            pairs.append((outputs[id(given[0])][0], name))

    for name, part in module.named_modules():
        if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Linear):
            hooks.append(part.register_forward_hook(lambda _m, _x, output, name=name: note_output(name, output)))
        elif isinstance(part, _BatchNorm) and part.track_running_stats:
            hooks.append(part.register_forward_pre_hook(lambda _m, given, name=name: note_input(name, given)))
    with torch.no_grad():
        result = module(inputs)
    for hook in hooks:
        hook.remove()
    return result, pairs


def same(values: Tensor, expected: Tensor) -> bool:
    """Whether two tensors differ by rounding only; not where one of them is not finite."""
    return bool((values - expected).abs().max() <= TOLERANCE * expected.abs().max())
