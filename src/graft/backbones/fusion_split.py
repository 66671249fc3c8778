"""A fusion cut behind its frozen parts: their features are kept, beside the inputs of the small parts that train."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from graft.backbones.base import Backbone
from graft.backbones.split_backbone import SplitBackbone
from graft.inputs.base import Fields
from graft.inputs.fusion import PRESENT, inputs_of

if TYPE_CHECKING:
    from graft.backbones.fusion import Fusion

PACKED = 1024  # numbers of a training part's input, up to which it is kept beside the frozen parts' features


class FusionSplit(SplitBackbone):
    """`rest(trunk(inputs))` are the fusion's features; activations hold frozen features, packed inputs, presence."""

    whole = False
    shape: tuple[int, ...] = ()

    def __init__(self, backbone: "Fusion", frozen: Sequence[str]) -> None:
        """`frozen` are the parts that are kept by their features."""
        super().__init__(backbone, f"{'+'.join(frozen)} of the parts", fold=False)
        self.fusion = backbone
        self.frozen = tuple(frozen)
        self.packed = {name: Packed(part) for name, part in backbone.parts.items() if name not in frozen}
        self.sizes = [
            self.packed[name].size if name in self.packed else part.feature_size
            for name, part in backbone.parts.items()
        ]
        self.shape = (sum(self.sizes) + len(self.sizes),)

    @property
    def place(self) -> int:
        """The more parts are kept by their features, the further behind it lies."""
        return sys.maxsize - len(self.packed)

    @property
    def first_part(self) -> nn.Module:
        """The frozen parts as they are."""
        return self.subject

    @property
    def subject(self) -> nn.Module:
        """The frozen parts: what trains behind them does not change what is kept."""
        return nn.ModuleDict({name: self.fusion.parts[name] for name in self.frozen})

    @torch.no_grad()
    def trunk(self, inputs: Any) -> Tensor:
        """Activations `(B, D)`."""
        columns = []
        for name, part in self.fusion.parts.items():
            own = inputs_of(name, inputs)
            columns.append(self.packed[name].pack(own) if name in self.packed else part(own))
        return torch.cat([*columns, inputs[PRESENT].to(columns[0])], dim=1)

    @torch.no_grad()
    def trunk_all(self, inputs: Any, earlier: Sequence[SplitBackbone]) -> list[Tensor]:
        """Activations at this cut and at others."""
        return [self.trunk(inputs), *(cut.trunk(inputs) for cut in earlier)]

    def rest(self, activations: Tensor) -> Tensor:
        """Features `(B, D)` of activations, with gradients to what trains."""
        *columns, present = activations.split([*self.sizes, len(self.sizes)], dim=1)
        features = {}
        for (name, part), values in zip(self.fusion.parts.items(), columns, strict=True):
            features[name] = part(self.packed[name].unpack(values)) if name in self.packed else values
        return self.fusion.fusing(features, self.fusion.without_removed(present > 0))


class Packed:
    """A part's inputs, all of one shape, as rows of numbers and back."""

    def __init__(self, part: Backbone) -> None:
        example = part.example_inputs(1)
        tensors = {"": example} if isinstance(example, Tensor) else dict(example.tensors)
        self.single = isinstance(example, Tensor)
        self.shapes: Mapping[str, tuple[int, ...]] = {name: tuple(one.shape[1:]) for name, one in tensors.items()}
        self.dtypes = {name: one.dtype for name, one in tensors.items()}
        self.size = sum(math.prod(shape) for shape in self.shapes.values())

    def pack(self, inputs: Tensor | Fields) -> Tensor:
        """Inputs `(B, ...)` as `(B, size)`; codes of categories are whole numbers that a float holds exactly."""
        tensors: Mapping[str, Tensor] = {"": inputs} if isinstance(inputs, Tensor) else inputs.tensors
        return torch.cat([tensors[name].flatten(1).float() for name in self.shapes], dim=1)

    def unpack(self, values: Tensor) -> Tensor | Fields:
        """What was packed; numbers keep the type of the values, which is that of the weights."""
        found = {}
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        for (name, shape), one in zip(self.shapes.items(), values.split(sizes, dim=1), strict=True):
            one = one.unflatten(1, shape) if len(shape) > 1 else one
            found[name] = one if self.dtypes[name].is_floating_point else one.to(self.dtypes[name])
        return found[""] if self.single else Fields(found)


def split_parts(backbone: "Fusion", active: frozenset[str]) -> FusionSplit | None:
    """The cut behind the parts without an active module, where the others' inputs are small and of one shape."""
    frozen = [
        name
        for name in backbone.parts
        if not any(
            module == (prefix := f"network.parts.{name}") or module.startswith(f"{prefix}.") for module in active
        )
    ]
    trained = [part for name, part in backbone.parts.items() if name not in frozen]
    if not frozen or not all(is_small(part) for part in trained):
        return None
    return FusionSplit(backbone, frozen)


def is_small(part: Backbone) -> bool:
    """Whether a part's inputs are worth keeping: rows of a table, or few numbers of one shape."""
    if part.modality == "table":
        return True
    return part.input_shape is not None and math.prod(part.input_shape) <= PACKED
