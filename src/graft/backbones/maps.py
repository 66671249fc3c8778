"""Maps of images that are padded to one batch, and a backbone cut behind them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from graft.backbones.base import Backbone
from graft.backbones.outputs import Maps, kept_outputs
from graft.backbones.split_backbone import SplitBackbone, eval_mode
from graft.data.boxes import by_padded_size

Sized = tuple[Tensor, Tensor]  # images (B, C, H, W), and their heights and widths without padding (B, 2)


def maps_of(backbone: Backbone, images: Tensor, sizes: Tensor | None = None) -> Maps:
    """Maps and features of images `(B, C, H, W)`, which are padded where their `sizes` `(B, 2)` are smaller.

    A network in eval mode sees each image at its own size, so that its maps do not depend on the others in the batch:
    a frozen one's can be kept. One that trains sees the batch as one, as BatchNorm has to.
    """
    if sizes is None or trains(backbone):
        return whole_maps(backbone, images)
    found = [*maps_by_size(backbone, images, sizes)]
    joined = Maps.join([maps for _, maps in found])
    return joined if len(found) == 1 else joined[torch.cat([places for places, _ in found]).argsort()]


def maps_by_size(backbone: Backbone, images: Tensor, sizes: Tensor) -> Iterator[tuple[Tensor, Maps]]:
    """The same of all images of one padded size, after each other: their places `(b,)` in the batch, and their maps."""
    for (height, width), places in by_padded_size(sizes).items():
        own = images if len(places) == len(images) else images[places.to(images.device)]
        maps = whole_maps(backbone, own[..., :height, :width])
        yield places, replace(maps, sizes=sizes[places.to(sizes.device)])


def whole_maps(backbone: Backbone, images: Tensor) -> Maps:
    """Of images of one size, or of a padded batch as it is."""
    height, width = images.shape[-2:]
    with kept_outputs(backbone, [""]) as found:
        maps = Maps(backbone.local(images), (height, width))
    return replace(maps, features=found.get(""))


def trains(backbone: Backbone) -> bool:
    """Whether any layer behaves as in training."""
    return any(layer.training for layer in backbone.modules() if next(layer.children(), None) is None)


class MapsSplit(SplitBackbone):
    """A frozen backbone behind which heads read maps of some stages; inputs are images with their sizes."""

    whole = True

    def __init__(self, backbone: Backbone, stages: Sequence[str]) -> None:
        """`stages` are those whose maps are read. BatchNorm stays, so that maps are what the backbone itself gives."""
        super().__init__(backbone, f"maps of {', '.join(stages)}", fold=False)
        self.stages = tuple(stages)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """How many numbers an image of the backbone's own size gives."""
        with eval_mode(self.backbone), torch.no_grad():
            maps = self.read(whole_maps(self.backbone, self.backbone.example_inputs(1)))
        return (sum(one.numel() for one in (*maps.values.values(), maps.features) if one is not None),)

    def read(self, maps: Maps) -> Maps:
        """The maps that heads read."""
        return replace(maps, values={stage: maps.values[stage] for stage in self.stages})

    @torch.no_grad()
    def trunk(self, inputs: Sized) -> Any:
        """Maps of a batch."""
        return self.read(maps_of(self.backbone, *inputs))

    @torch.no_grad()
    def trunk_all(self, inputs: Sized, earlier: Sequence[SplitBackbone]) -> list[Any]:
        """Maps of a batch as they are kept: places in it and maps, size by size."""
        assert not earlier  # nothing is cut inside
        return [[(places, self.read(maps)) for places, maps in maps_by_size(self.backbone, *inputs)]]

    def rest(self, activations: Any) -> Any:
        """The maps themselves."""
        return activations
