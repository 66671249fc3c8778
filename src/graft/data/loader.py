"""A DataLoader that goes on where it was stopped."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from graft.backbones.cut import Activations
from graft.cache.rows import MappedRows
from graft.data.domain import LazyTensor, Split
from graft.data.sampling import Key, TrainBatches
from graft.data.transforms import Transform

Batch = tuple[Tensor | Activations, Tensor | None]


class TransformedSplit(Dataset):
    """A split that gives whole batches, transformed; the randomness of a batch comes from its key alone."""

    def __init__(
        self,
        split: Split,
        transform: Transform,
        stored: Mapping[tuple[str, str], MappedRows | None],
        part: tuple[str, str],
    ) -> None:
        """Where `stored` has activations for the part, batches hold those in place of the inputs."""
        # Made here and not in a worker, each of which would make its own copy.
        self.inputs = split.inputs.tensor if isinstance(split.inputs, LazyTensor) else split.inputs
        self.labels = split.labels
        self.transform = transform
        self.stored = stored
        self.part = part

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Inputs float `(B, C, H, W)` and labels `(B,)`, or None where the domain counts as unlabelled."""
        indices = [index for _, index in keys]
        labels = None if self.labels is None else self.labels[indices]
        if (rows := self.stored.get(self.part)) is not None:
            return Activations(rows[indices]), labels
        images = self.inputs[indices] if isinstance(self.inputs, Tensor) else [self.inputs[i] for i in indices]
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(keys[0][0])
            inputs = self.transform(images)
        return inputs, labels


class ResumableLoader(DataLoader):
    """Training loader whose position is saved in checkpoints (Lightning calls `state_dict` and `load_state_dict`).

    The position belongs to an epoch: in any other epoch iteration begins at the first step.
    """

    batch_sampler: TrainBatches
    _position = (0, 0)  # (epoch, batches given out in it)
    _resumes = False

    def __iter__(self) -> Iterator[Batch]:
        # A generator: nothing is drawn before the first batch is asked for, when Lightning has set the epoch.
        sampler = self.batch_sampler
        epoch, done = self._position
        sampler.start = done if self._resumes and epoch == sampler.epoch else 0
        self._resumes = False
        epoch = sampler.epoch
        for done, batch in enumerate(super().__iter__(), start=sampler.start + 1):
            self._position = (epoch, done)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Epoch and batches given out in it; what workers have fetched ahead does not count."""
        epoch, done = self._position
        return {"epoch": epoch, "batches": done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at a saved position."""
        self._position = (state["epoch"], state["batches"])
        self._resumes = True


def in_domain(batch: Batch, domain: str) -> dict[str, Batch]:
    """Collates an evaluation batch, which the dataset gives whole, to `{domain: batch}`."""
    return {domain: batch}


def as_it_is(batch: Batch) -> Batch:
    """Collates nothing: the dataset gives whole batches."""
    return batch
