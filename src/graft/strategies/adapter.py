"""Adapters: small residual bottlenecks after the frozen blocks.

For transformers by Houlsby et al. (ICML 2019), for convolutional networks by Rebuffi et al. (NeurIPS 2017).
"""

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from graft.backbones.base import Backbone
from graft.backbones.stages import network_outputs
from graft.config.types import Count
from graft.errors import GraftError
from graft.strategies.base import Phase, Strategy, in_short, stage_names

NAME = "adapter"  # of the submodule in its block
LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)  # would run an adapter inside of them as one of their items


class Bottleneck(nn.Module):
    """`y + up(gelu(down(y)))`, at first `y` as `up` is zero; on maps `(B, C, H, W)` or on `(B, ..., C)`."""

    def __init__(self, channels: int, width: int, channels_first: bool) -> None:
        super().__init__()
        self.down: nn.Conv2d | nn.Linear
        self.up: nn.Conv2d | nn.Linear
        if channels_first:
            self.down, self.up = nn.Conv2d(channels, width, 1), nn.Conv2d(width, channels, 1)
        else:
            self.down, self.up = nn.Linear(channels, width), nn.Linear(width, channels)
        nn.init.zeros_(self.up.weight)
        assert self.up.bias is not None
        nn.init.zeros_(self.up.bias)

    def forward(self, y: Tensor) -> Tensor:
        """The adapted `y`, of the same shape."""
        return y + self.up(nn.functional.gelu(self.down(y)))


class Adapter(Strategy):
    """An adapter after each block trains, `bottleneck` channels wide; the pretrained weights keep values and names.

    A network without blocks, such as VGG or LeNet, gets one after each stage. Adapters are not linear and stay in the
    network: there is nothing to merge.
    """

    freezes = True
    adds_layers = True

    def __init__(self, bottleneck: Count = 16, train_bn: bool | None = None) -> None:
        super().__init__(train_bn)
        self.bottleneck = bottleneck

    def phases(self, epochs: int, backbone: Backbone) -> list[Phase]:
        """One phase that trains the adapters of this prepared backbone, with the network's dropout on."""
        adapters = [name for name, module in backbone.named_modules() if isinstance(module, Bottleneck)]
        names = [f"{name}.{key}" for name in adapters for key, _ in backbone.get_submodule(name).named_parameters()]
        return [self.phase(epochs, backbone, stage_names(backbone), names)]

    def prepare(self, backbone: Backbone) -> None:
        """Add an adapter to each block; GraftError where the network has no place for one."""
        network = backbone.network
        places = adapter_places(backbone)
        maps = [shape for shape in places.values() if len(shape) == 4]
        channels_last = any(shape[1] == shape[2] != shape[3] for shape in maps)  # Swin's (B, H, W, C)
        for name, shape in places.items():
            channels_first = len(shape) == 4 and not channels_last
            adapter = Bottleneck(shape[1 if channels_first else -1], self.bottleneck, channels_first)
            block = network.get_submodule(name)
            block.add_module(NAME, adapter.to(next(network.parameters())))
            block.register_forward_hook(adapt_output)

        self.note = f"adapters {self.bottleneck} channels wide follow {in_short(places)}"
        runs = Counter(name for name, _ in network_outputs(backbone))
        if not places or any(runs[f"{name}.{NAME}"] != 1 for name in places):
            raise GraftError(
                f"strategy=adapter: {backbone.name} has no blocks or stages that an adapter can follow. "
                "Use strategy=lora, or another backbone."
            )


def adapt_output(block: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Forward hook of a block: its output goes through its adapter."""
    return block.get_submodule(NAME)(output)


def adapter_places(backbone: Backbone) -> dict[str, torch.Size]:
    """Names and output shapes of the modules that get an adapter: the blocks, else the last module of each stage."""
    network = backbone.network
    outputs = network_outputs(backbone)
    runs = Counter(name for name, _ in outputs)
    possible = {
        name: shape
        for name, shape in outputs  # in the order in which they finish
        if name
        and runs[name] == 1
        and 2 <= len(shape) <= 4
        and not isinstance(network.get_submodule(name), LISTS)
        and any(stage.covers(f"network.{name}") for stage in backbone.stages)
    }
    blocks = [name for name in block_names(network) if name in possible]
    if not blocks:
        last = {stage.name: name for stage in backbone.stages for name in possible if stage.covers(f"network.{name}")}
        blocks = list(last.values())
    return {name: possible[name] for name in blocks}


def block_names(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """Names of the residual, dense and transformer blocks.

    They are the innermost modules with two weight layers or more that stand beside others of their class, or alone.
    """
    children = dict(module.named_children())
    kinds = Counter(type(child) for child in children.values())
    for name, child in children.items():
        inside = list(block_names(child, f"{prefix}{name}."))
        layers = [layer for layer in child.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
        if inside:
            yield from inside
        elif (kinds[type(child)] > 1 or len(kinds) == 1) and len(layers) > 1 and not isinstance(child, LISTS):
            yield f"{prefix}{name}"
