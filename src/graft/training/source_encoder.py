"""Joint training with one embedding of tokens and an encoder for each domain (`backbone.share=embedding`)."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from graft.backbones.base import Backbone, Stage

NETWORK, SOURCE = "network", "source_network"  # names in the backbone: the target's and the source's


def add_source_encoder(backbone: Backbone) -> None:
    """Give the backbone a second network for the source, whose embedding is the first one's.

    It begins with numbers of its own where its layers can be drawn again, and belongs to the same stages.
    """
    assert backbone.embedding is not None
    network: nn.Module = backbone.network
    shared = network.get_submodule(backbone.embedding)
    source = copy.deepcopy(network)
    for module in source.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    path, _, name = backbone.embedding.rpartition(".")
    setattr(source.get_submodule(path), name, shared)
    backbone.add_module(SOURCE, source)
    backbone.stages = tuple(
        Stage(stage.name, (*(of_source(prefix) for prefix in stage.prefixes), *stage.prefixes))
        for stage in backbone.stages
    )


def of_source(prefix: str) -> str:
    """What a part of the network is called in the source's."""
    return f"{SOURCE}{prefix.removeprefix(NETWORK)}"


def has_source_encoder(backbone: nn.Module) -> bool:
    """Whether the source has a network of its own."""
    return SOURCE in backbone._modules


@contextmanager
def source_encoder(backbone: nn.Module) -> Iterator[None]:
    """Let the backbone be the source's inside the block, where that has a network of its own."""
    if not has_source_encoder(backbone):
        yield
        return
    swap(backbone)
    try:
        yield
    finally:
        swap(backbone)


def swap(backbone: nn.Module) -> None:
    """Exchange both networks under their names."""
    modules = backbone._modules
    modules[NETWORK], modules[SOURCE] = modules[SOURCE], modules[NETWORK]
