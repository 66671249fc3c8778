"""Training batches of a stream: a process reads its samples in their order, its workers decode batches of them.

One reader a process and not one a worker: the order is the same whatever the number of workers, and a resumed run only
has to know how many batches there were.
"""

import functools
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, TypeVar

import torch
from torch.utils.data import Dataset

from graft.data.loader import ResumableLoader, seeded
from graft.data.samples import Split, seed_of
from graft.data.sampling import TrainBatches, rank_and_world
from graft.data.stream import Stored, Stream, Unusable
from graft.data.views import TEACHER
from graft.errors import GraftError, listed
from graft.inputs.base import DomainBatch, Inputs, Transform
from graft.notes import say_once

T = TypeVar("T")
AHEAD = 4  # batches that are read before they are asked for

StoredKey = tuple[int, Sequence[Stored]]  # a batch: seed of its augmentation, its samples as they are stored


class StreamBatches(TrainBatches):
    """Which samples make up which batch: a function of (seed, epoch, step), and of how many processes there are.

    `steps=None`: an epoch is one pass, of which every process gets as many samples. `steps=n`: n full batches of as
    many passes as that takes, which begin anew in every epoch.
    """

    def __init__(self, stream: Stream, batch_size: int, seed: object, steps: int | None, fixed: bool) -> None:
        super().__init__(stream.length or 0, batch_size, seed, steps, fixed=fixed)
        self.stream = stream

    def __len__(self) -> int:
        if self.steps is None:
            len(self.stream)  # GraftError where nobody knows
        return super().__len__()

    def __iter__(self) -> Iterator[StoredKey]:  # type: ignore[override]  # samples in the place of indices
        return ahead(self._keys(self.start, rank_and_world()[0]), AHEAD)

    def key(self, step: int, rank: int) -> StoredKey:  # type: ignore[override]
        """The batch of a process at a step of the current epoch."""
        return next(self._keys(step, rank))

    def _keys(self, start: int, rank: int) -> Iterator[StoredKey]:
        samples = self._samples(rank, start * self.batch_size)
        for step in range(start, len(self)):
            batch = list(islice(samples, self.batch_size))
            yield seed_of(self.seed, "batch", self.epoch, step, rank), batch

    def _samples(self, rank: int, start: int) -> Iterator[Stored]:
        """A process's samples of the current epoch, without the first `start`."""
        world = rank_and_world()[1]
        each = None if self.stream.length is None else self.stream.length // world
        if each == 0:
            raise GraftError(f"{self.stream.key}: {self.stream.length} training samples cannot feed {world} processes.")
        for number in count():
            if each is not None and start >= each and self.steps is not None:
                start -= each
                continue
            seed, given = seed_of(self.seed, "order", self.epoch, number), 0
            for given, sample in enumerate(self.stream.open(seed, rank, world, 0 if each is None else start), 1):
                if each is not None or given > start:
                    yield sample
            if each is None and not given:
                raise GraftError(f"{self.stream.key}: a process's shards hold no samples.")
            start = 0 if each is not None else max(start - given, 0)
            if self.steps is None:
                return


def ahead(items: Iterator[T], number: int) -> Iterator[T]:
    """The items, of which a thread makes so many before they are asked for."""
    ready: queue.Queue[Any] = queue.Queue(number)
    left = threading.Event()

    def put(one: Any) -> bool:
        while not left.is_set():
            try:
                ready.put(one, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((None, StopIteration()))
        except BaseException as error:  # whatever it is, it is the caller's
            put((None, error))

    thread = threading.Thread(target=work, name="graft-reader", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        left.set()
        thread.join()


@dataclass
class StreamedBatch(DomainBatch):
    """A batch, and which of its samples could not be used."""

    unusable: Sequence[Unusable] = ()


class StreamedSamples(Dataset):
    """Whole batches of what was read; the randomness of a batch and of each of its views comes from its key alone."""

    slow = True

    def __init__(self, stream: Stream, transform: Transform, views: Mapping[str, Transform]) -> None:
        self.stream = stream
        self.transform = transform
        self.views = views

    def __getitem__(self, key: StoredKey) -> StreamedBatch:
        """The batch of a key's samples; all of them are looked into only where one cannot be decoded."""
        seed, samples = key
        try:
            return self._batch(seed, samples, look=False)
        except GraftError:
            return self._batch(seed, samples, look=True)

    def _batch(self, seed: int, samples: Sequence[Stored], look: bool) -> StreamedBatch:
        split, indices, unusable = self.stream.decode(samples, look)
        if not len(split) or (unusable and not self.stream.skips):
            return StreamedBatch(unusable=unusable)
        inputs = self._drawn(self.transform, seed, split)
        views = {
            name: self._drawn(transform, seed if name == TEACHER else seed_of(seed, "view", name), split)
            for name, transform in self.views.items()
        }
        labels = None if self.stream.labels is None else split.labels
        return StreamedBatch(inputs, labels, indices, views, unusable=unusable)

    def _drawn(self, transform: Transform, seed: int, split: Split) -> Inputs:
        with seeded(transform, seed):
            return transform.collate(self.stream.prepare(transform, split)[torch.arange(len(split))])


class StreamLoader(ResumableLoader):
    """Training loader of a stream; its position is saved in checkpoints, with what could not be used until then."""

    batch_sampler: StreamBatches

    def __init__(
        self,
        stream: Stream,
        transform: Transform,
        batches: StreamBatches,
        num_workers: int,
        views: Mapping[str, Transform],
        skipped: dict[str, str],
    ) -> None:
        """`skipped` is filled with why a sample cannot be used, by what messages call it."""
        super().__init__(lambda: (), None, transform, batches, num_workers)
        self.stream = stream
        self.skipped = skipped
        self._streamed = StreamedSamples(stream, transform, views)

    @functools.cached_property
    def _samples(self) -> Any:
        return self._streamed

    @property
    def _slow(self) -> bool:
        return True

    def __iter__(self) -> Iterator[DomainBatch]:
        for batch in super().__iter__():
            yield self._usable(batch)

    def batch(self, key: Any, *, stored: bool = False) -> DomainBatch:
        """One batch, made by this process."""
        return self._usable(self._samples[key])

    def _usable(self, batch: Any) -> DomainBatch:
        """A batch without its samples that cannot be used, which are noted; GraftError where that is to be none."""
        if batch.unusable:
            new = [one for one in batch.unusable if one.place not in self.skipped]
            shown = listed([f"{one.place}: {one.problem}" for one in batch.unusable], separator="; ")
            if not self.stream.skips:
                raise GraftError(
                    f"{self.stream.key}: a training sample cannot be used ({shown}). Write its shard without it, or "
                    f"leave such samples out: {self.stream.key}.on_bad_sample=skip"
                )
            if batch.inputs is None:
                raise GraftError(f"{self.stream.key}: no sample of a batch can be used ({shown}). Repair the shard.")
            if new and not self.skipped:
                say_once(f"left out while training, as {self.stream.key}.on_bad_sample=skip says: {shown}")
            self.skipped |= {one.place: one.problem for one in new}
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Epoch, batches given out in it, and what was left out."""
        return super().state_dict() | {"skipped": dict(self.skipped)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at a saved position."""
        super().load_state_dict(state)
        self.skipped |= state["skipped"]
