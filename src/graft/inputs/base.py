"""What every modality has: what stands in a batch for a sample, an input spec, a transform."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.cache.disk import DiskCache
from graft.data.boxes import Boxes
from graft.data.samples import Split


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


@dataclass
class DomainBatch:
    """A batch of one domain, as loaders give it and every step takes it; moved like a tensor.

    A field that is None is not there: `labels` of an unlabelled domain, `inputs` where `stored` activations stand in
    their place.
    """

    inputs: Any = None  # Inputs (B, ...)
    labels: Any = None  # (B,), (B, K) or Boxes; fewer where only the first samples have some
    indices: Tensor | None = None  # (B,) of the samples in their split
    views: Mapping[str, Inputs] = field(default_factory=dict)  # the same samples again, augmented as a term asks for
    stored: Any = None  # (B, ...), or Maps, of a frozen part of the backbone

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.inputs if self.stored is None else self.stored)

    @property
    def sizes(self) -> Tensor | None:
        """Height and width `(B, 2)` of images with boxes, which are padded to one size; None of all other samples."""
        return self.labels.sizes if isinstance(self.labels, Boxes) else None

    def to(self, device: Any, **options: Any) -> "DomainBatch":
        """Everything moved but the indices, which only the data module needs."""
        return self._each(lambda one: one.to(device, **options))

    def pin_memory(self) -> "DomainBatch":
        """Everything in memory from which a GPU copies while it computes."""
        return self._each(lambda one: one.pin_memory())

    def _each(self, move: Callable[[Any], Any]) -> "DomainBatch":
        moved = {name: None if (one := getattr(self, name)) is None else move(one) for name in MOVED}
        return replace(self, **moved, views={name: move(view) for name, view in self.views.items()})


MOVED = ("inputs", "labels", "stored")

Batch = Mapping[str, DomainBatch]  # by domain


def one_of(inputs: Inputs, number: int) -> Inputs:
    """A sample of a batch as a batch of one."""
    if isinstance(inputs, Fields):
        return Fields({name: tensor[number : number + 1] for name, tensor in inputs.tensors.items()})
    return inputs[number : number + 1]


def join(batches: Sequence[Inputs]) -> Inputs:
    """Batches one after the other as one; sequences and images are filled up with zeros to the largest."""
    if isinstance(batches[0], Tensor):
        return cat_padded(cast(list[Tensor], [*batches]))
    fields = cast(Sequence[Fields], batches)
    return Fields({name: cat_padded([batch[name] for batch in fields]) for name in fields[0].tensors})


def cat_padded(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors `(B, ...)` of different sizes as one, zeros behind the ends of the smaller ones."""
    largest = [max(sizes) for sizes in zip(*(one.shape[1:] for one in tensors), strict=True)]

    def padded(one: Tensor) -> Tensor:
        missing = [most - own for most, own in zip(largest, one.shape[1:], strict=True)]
        return F.pad(one, [side for more in reversed(missing) for side in (0, more)]) if any(missing) else one

    return torch.cat([padded(one) for one in tensors])


class InputSpec(Protocol):
    """What a backbone wants to see; plain values, so that its repr tells one from another."""

    def transform(self, augment: str = "none", shift: str | None = None) -> Any:
        """What makes a domain's samples so (see graft.inputs), with augmentation or a shift of its modality."""


class Prepared(Protocol):
    """Samples by indices `(B,)`: images are a tensor `(B, C, H, W)`, or a list where every sample has its own size.

    Those that are read from files whenever they are asked for say so: their `slow` is true.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor) -> Tensor | Sequence[Tensor]: ...


class Transform(Protocol):
    """What makes a domain's samples into what a backbone takes; each modality has its own (see an input spec).

    What is never random is done once by `prepare`, and kept, under `key`; `collate` does the rest for each batch.
    """

    key: str  # all that decides what `prepare` gives
    augment: Any  # None where nothing is random; `augment.slow` says whether worker processes are worth their while

    def prepare(self, split: Split, cache: DiskCache | None) -> Prepared:
        """The split's samples before `collate`, by indices."""

    def collate(self, samples: Any) -> Inputs:
        """Inputs `(B, ...)` of some rows; only here is something random drawn, from torch's global generator."""

    def collate_with(self, samples: Any, labels: Any) -> tuple[Inputs, Any]:
        """The same where what is random moves the labels too, such as boxes; only of a transform for such labels."""
        raise NotImplementedError
