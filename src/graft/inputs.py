"""What a batch holds in the place of a sample: a tensor, or several tensors that belong together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class Fields:
    """Several tensors `(B, ...)` that are one input, such as tokens and their mask; moved and counted like a tensor."""

    tensors: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return next(iter(self.tensors.values())).device

    def to(self, device: Any, **options: Any) -> "Fields":
        """Every tensor moved."""
        return Fields({name: tensor.to(device, **options) for name, tensor in self.tensors.items()})

    def pin_memory(self) -> "Fields":
        """Every tensor in memory from which a GPU copies while it computes."""
        return Fields({name: tensor.pin_memory() for name, tensor in self.tensors.items()})


Inputs = Tensor | Fields


def join(batches: Sequence[Inputs]) -> Inputs:
    """Batches one after the other as one; sequences are filled up with zeros to the longest."""
    if isinstance(batches[0], Tensor):
        return torch.cat([*batches])
    names = batches[0].tensors
    return Fields({name: cat_padded([batch[name] for batch in batches]) for name in names})


def cat_padded(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors `(B, L, ...)` of different lengths as one, zeros behind the shorter ones."""
    if tensors[0].ndim == 1:
        return torch.cat([*tensors])
    longest = max(tensor.shape[1] for tensor in tensors)
    after = [0] * (2 * (tensors[0].ndim - 2) + 1)
    return torch.cat([F.pad(tensor, [*after, longest - tensor.shape[1]]) for tensor in tensors])
