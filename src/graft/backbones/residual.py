"""Residual blocks, whatever library a network comes from, and where their branches end."""

import re

from torch import nn
from torchvision.models import mnasnet, mobilenetv2, mobilenetv3, regnet, resnet, vision_transformer

# Attributes in which the blocks of torchvision and timm keep what drops their branches: a module, or None.
DROP = re.compile(r"drop_path\d*|stochastic_d(epth|ropout)")
# Blocks without such an attribute: the modules that end their branches, before the block's input is added.
BRANCH_ENDS: dict[type[nn.Module], tuple[str, ...]] = {
    resnet.BasicBlock: ("bn2",),
    resnet.Bottleneck: ("bn3",),
    mobilenetv2.InvertedResidual: ("conv",),
    mobilenetv3.InvertedResidual: ("block",),
    mnasnet._InvertedResidual: ("layers",),
    regnet.ResBottleneckBlock: ("f",),
    vision_transformer.EncoderBlock: ("dropout", "mlp"),
}
# What blocks call it that their input is added; those that change its shape leave it out.
SHORTCUT = ("use_res_connect", "apply_residual", "has_skip", "use_shortcut", "add_identity")


def residual_blocks(network: nn.Module) -> list[nn.Module]:
    """Blocks from input to output, also those of their class that leave out the shortcut; of nested ones the outer."""
    if drop_attributes(network) or branch_ends(network):
        return [network]
    return [block for child in network.children() for block in residual_blocks(child)]


def drop_attributes(block: nn.Module) -> list[str]:
    """Names under which a block keeps what drops its branches."""
    held = {**vars(block), **block._modules}
    return [
        name for name, value in held.items() if DROP.fullmatch(name) and (value is None or isinstance(value, nn.Module))
    ]


def branch_ends(block: nn.Module) -> tuple[str, ...]:
    """Names of the modules that end a block's branches, where it is a block that keeps nothing to drop them."""
    return next((ends for kind, ends in BRANCH_ENDS.items() if isinstance(block, kind)), ())


def adds_its_input(block: nn.Module) -> bool:
    """Whether the block has a shortcut."""
    return all(getattr(block, name, True) for name in SHORTCUT)
