"""Stochastic depth: residual branches that are left out at random while training (Huang et al., ECCV 2016)."""

from functools import partial
from typing import Any

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from graft.backbones.base import Backbone
from graft.backbones.residual import adds_its_input, branch_ends, drop_attributes, residual_blocks
from graft.errors import GraftError


def set_stochastic_depth(backbone: Backbone, probability: float) -> None:
    """Drop the branches of block l of L for each sample with chance `probability * l / L`, in place.

    Parameters and their names stay. What drops is a separate module in the block and follows the mode of the block's
    stage: where that is frozen, nothing is dropped. Raises GraftError for a network without residual blocks.
    """
    blocks = [block for block in residual_blocks(backbone.network) if adds_its_input(block)]
    if probability and not blocks:
        raise GraftError(
            f"training.stochastic_depth={probability}: {backbone.name} has no residual blocks that could be left out. "
            "Set training.stochastic_depth=0, or use a network that has some, such as backbone=resnet18, mobilenet_v2, "
            "efficientnet_lite0, convnext or vit."
        )
    for number, block in enumerate(blocks, start=1):
        set_drop(block, probability * number / len(blocks))


def set_drop(block: nn.Module, probability: float) -> None:
    """Set the chance of one block; torchvision's and timm's own way to drop is the same function of it."""
    attributes = drop_attributes(block)
    for name in attributes:
        setattr(block, name, StochasticDepth(probability, mode="row"))
    if not attributes and probability:
        block.stochastic_depth = StochasticDepth(probability, mode="row")
        for name in branch_ends(block):
            block.get_submodule(name).register_forward_hook(partial(drop_branch, block))


def drop_branch(block: nn.Module, end: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """Forward hook of a branch's last module; bound to the block by `partial`, which deep copies take along."""
    drop = block.stochastic_depth
    assert isinstance(drop, nn.Module)
    return drop(output)
