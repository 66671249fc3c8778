"""What a fusion makes of its modalities: how much each gate lets through, and what the test says without each."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from graft.backbones.base import Backbone
from graft.backbones.fusing import Gates
from graft.backbones.fusion import Fusion
from graft.model.save import gathered

WITHOUT = "target_without_{}"  # how the metrics call the target's test samples without a modality


@contextmanager
def gate_means(backbone: Backbone) -> Iterator[dict[str, float]]:
    """After the block, by modality the mean of its gates over the block's samples and dimensions; empty without gates.

    Every process takes part.
    """
    found: dict[str, float] = {}
    gates = [module for module in backbone.modules() if isinstance(module, Gates)]
    if not isinstance(backbone, Fusion) or not gates:
        yield found
        return
    sums: list[tuple[Tensor, int]] = []

    def add(_module: Any, _inputs: Any, output: Tensor) -> None:
        sums.append((output.detach().double().mean(2).sum(0).cpu(), len(output)))

    handle = gates[0].register_forward_hook(add)
    try:
        yield found
    finally:
        handle.remove()
    if not (everywhere := gathered(sums)):  # no batch was tested
        return
    total = torch.stack([one for one, _ in everywhere]).sum(0) / sum(number for _, number in everywhere)
    found |= dict(zip(backbone.parts, total.tolist(), strict=True))


def without_each(backbone: Backbone) -> Iterator[str]:
    """Every part of a fusion of several, which counts as missing in all samples until the next one is asked for."""
    if isinstance(backbone, Fusion) and len(backbone.parts) > 1:
        for part in backbone.parts:
            with backbone.removed(part):
                yield part
