"""What modules put out while a network runs: maps of images, and vectors of tokens."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graft.errors import GraftError
from graft.inputs.base import cat_padded


@dataclass(frozen=True)
class Tokens:
    """Vectors `(B, T, D)` of an image's places or a text's tokens; the mask `(B, T)` is 1 where one counts.

    `features` are the backbone's own, `(B, D')`, of the same pass; None where it did not run as a whole.
    """

    values: Tensor
    mask: Tensor
    features: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def split(self, sizes: Sequence[int]) -> "list[Tokens]":
        """Batches of these sizes, one after the other."""
        features = [None] * len(sizes) if self.features is None else self.features.split(sizes)
        return [Tokens(*one) for one in zip(self.values.split(sizes), self.mask.split(sizes), features, strict=True)]

    @classmethod
    def join(cls, batches: "Sequence[Tokens]") -> "Tokens":
        """Batches as one, with zeros behind the ends of the shorter ones; without features."""
        longest = max(one.values.shape[1] for one in batches)
        values = [nn.functional.pad(one.values, (0, 0, 0, longest - one.values.shape[1])) for one in batches]
        masks = [nn.functional.pad(one.mask, (0, longest - one.mask.shape[1])) for one in batches]
        return cls(torch.cat(values), torch.cat(masks))

    @classmethod
    def of_map(cls, maps: Tensor) -> "Tokens":
        """Every place of maps as channels_first takes them."""
        values = channels_first(maps).transpose(1, 2)
        return cls(values, torch.ones(values.shape[:2], dtype=torch.int64, device=values.device))


@dataclass(frozen=True)
class Maps:
    """Maps `(B, C, H, W)` of stages by name, of images of `size` `(H, W)`; `features` `(B, D)` of the same pass.

    `sizes` `(B, 2)` are height and width of the images without padding, where they are known.
    """

    values: Mapping[str, Tensor]
    size: tuple[int, int]
    features: Tensor | None = None
    sizes: Tensor | None = None

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def __getitem__(self, images: Tensor | slice) -> "Maps":
        """Those of some images."""
        return self._each(lambda one: one[images])

    def to(self, device: Any, **options: Any) -> "Maps":
        """Every tensor moved."""
        return self._each(lambda one: one.to(device, **options))

    def pin_memory(self) -> "Maps":
        """Every tensor in memory from which a GPU copies while it computes."""
        return self._each(lambda one: one.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Maps":
        values = {stage: change(one) for stage, one in self.values.items()}
        features, sizes = (None if one is None else change(one) for one in (self.features, self.sizes))
        return Maps(values, self.size, features, sizes)

    def split(self, numbers: Sequence[int]) -> "list[Maps]":
        """Batches of these numbers of images, one after the other."""
        ends = [*itertools.accumulate(numbers)]
        return [self[end - number : end] for number, end in zip(numbers, ends, strict=True)]

    @classmethod
    def join(cls, batches: "Sequence[Maps]") -> "Maps":
        """Batches as one, with zeros below and at the right of the smaller maps."""
        if len(batches) == 1:
            return batches[0]
        values = {stage: cat_padded([one.values[stage] for one in batches]) for stage in batches[0].values}
        features, sizes = joined([one.features for one in batches]), joined([one.sizes for one in batches])
        height, width = (max(one.size[side] for one in batches) for side in (0, 1))
        return cls(values, (height, width), features, sizes)


def joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Batches as one; None where one is not there."""
    there = [one for one in parts if one is not None]
    return torch.cat(there) if len(there) == len(parts) else None


@dataclass(frozen=True)
class MapSize:
    """Channels of a stage's maps, and pixels of the image from one of their places to the next."""

    channels: int
    stride: int


def map_sizes(outputs: Mapping[str, Tensor], size: int) -> dict[str, MapSize]:
    """Of the stages' outputs for a square image of `size` pixels those that are maps `(B, C, H, W)`."""
    maps = {stage: one for stage, one in outputs.items() if one.ndim == 4 and one.shape[2] == one.shape[3]}
    return {stage: MapSize(one.shape[1], 2 ** round(math.log2(size / one.shape[2]))) for stage, one in maps.items()}


def features_of(seen: Tensor | Tokens | Maps) -> Tensor:
    """The backbone's features `(B, D)` of what a head takes; GraftError where there are none."""
    if isinstance(seen, Tensor):
        return seen
    if seen.features is None:
        raise GraftError(
            "The backbone's `tokens` does not run the backbone as a whole, so that there are no features (B, D), at "
            "which terms look. Let it call the backbone itself, use a head that takes features, or leave the terms out."
        )
    return seen.features


@contextmanager
def kept_outputs(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Inside the block, the outputs of the named modules go into the dict that it gives, with their graph."""
    found: dict[str, Any] = {}

    def keep(name: str, output: Any) -> None:
        found[name] = output

    handles = [
        network.get_submodule(name).register_forward_hook(lambda _m, _x, output, name=name: keep(name, output))
        for name in names
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def first_of(output: Any) -> Any:
    """What a module puts out, of several values the first."""
    return output[0] if isinstance(output, tuple) else output


def channel_dim(maps: Tensor) -> int:
    """Which dimension holds the channels in `(B, D)`, tokens `(B, N, D)`, `(B, C, H, W)` or Swin's `(B, H, W, C)`.

    Maps are square, as the images are, so channels come last where the two before them are equal.
    """
    if maps.ndim not in (2, 3, 4):
        raise GraftError(f"Maps must be (B, D), (B, N, D), (B, C, H, W) or (B, H, W, C), not {tuple(maps.shape)}.")
    channels_last = maps.ndim < 4 or maps.shape[1] == maps.shape[2] != maps.shape[3]
    return maps.ndim - 1 if channels_last else 1


def channels_first(maps: Tensor) -> Tensor:
    """Maps of any kind as `(B, C, P)`, P positions."""
    return maps.movedim(channel_dim(maps), 1).flatten(2) if maps.ndim > 2 else maps.unsqueeze(2)
