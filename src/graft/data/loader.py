"""Loaders of whole batches: sized, resumable, and with worker processes only where they are worth their while."""

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from graft import signals
from graft.cache.rows import Rows
from graft.data.boxes import Boxes
from graft.data.samples import seed_of
from graft.data.sampling import EvalBatches, Key, TrainBatches
from graft.data.views import TEACHER
from graft.inputs.base import DomainBatch, Inputs, Prepared, Transform


class TransformedSamples(Dataset):
    """Whole batches by key; the randomness of a batch and of each of its views comes from its key alone."""

    def __init__(
        self,
        prepared: Prepared,
        labels: Any,
        transform: Transform,
        views: Mapping[str, tuple[Prepared, Transform]],
    ) -> None:
        self.prepared = prepared
        self.labels = labels
        self.transform = transform
        self.views = views

    def __getitem__(self, key: Key) -> DomainBatch:
        """The batch of a key's samples."""
        seed, indices = key
        labels = labels_of(self.labels, indices)
        views = {
            name: drawn(prepared, transform, seed if name == TEACHER else seed_of(seed, "view", name), indices)
            for name, (prepared, transform) in self.views.items()
        }
        if isinstance(labels, Boxes):
            with seeded(self.transform, seed):
                inputs, labels = self.transform.collate_with(self.prepared[indices], labels)
            return DomainBatch(inputs, labels, indices, views)
        return DomainBatch(drawn(self.prepared, self.transform, seed, indices), labels, indices, views)


def labels_of(labels: Any, indices: Tensor) -> Any:
    """Labels of a batch's samples `(B,)`, or of those among them that have one, which come first."""
    return None if labels is None else labels[indices[indices < len(labels)]]


def drawn(prepared: Prepared, transform: Transform, seed: int, indices: Tensor) -> Inputs:
    """Inputs of some samples; what is random in them is a function of the seed."""
    with seeded(transform, seed):
        return transform.collate(prepared[indices])


@contextmanager
def seeded(transform: Transform, seed: int) -> Iterator[None]:
    """What a transform draws inside the block is a function of the seed, and changes nothing outside."""
    if transform.augment is None:
        yield
        return
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)  # the only one that is drawn from, and the one that is restored
        yield


class Loader:
    """Batches in the order of a batch sampler, made by this process itself where that is quick.

    Worker processes serve files that have to be decoded and augmentation that goes image by image. `prepared` gives the
    images; it is called at the first batch, because many runs never look at a split. `stored` is asked in every epoch
    whether there are activations `(N, ...)` that stand in the images' place. `views` are further versions of the
    same samples by name, each with what prepares it.
    """

    def __init__(
        self,
        prepared: Callable[[], Prepared],
        labels: Any,
        transform: Transform,
        batch_sampler: TrainBatches | EvalBatches | Sequence[Key],
        num_workers: int = 0,
        stored: Callable[[], Rows | None] = lambda: None,
        views: Mapping[str, tuple[Callable[[], Prepared], Transform]] | None = None,
    ) -> None:
        self.batch_sampler = batch_sampler
        self.num_workers = num_workers
        self._prepared = prepared
        self._labels = labels
        self._transform = transform
        self._stored = stored
        self._views = views or {}

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Any]:
        if (activations := self._stored()) is not None:
            batches: Iterator[DomainBatch] = (self._of(activations, indices) for _, indices in self.batch_sampler)
        elif self.num_workers and self._slow:
            return iter(self._workers)
        else:
            batches = map(self._samples.__getitem__, self.batch_sampler)
        return (batch.pin_memory() for batch in batches) if torch.cuda.is_available() else batches

    def batch(self, key: Key, *, stored: bool = False) -> DomainBatch:
        """One batch, made by this process: from the samples, or from `stored` activations where there are some."""
        activations = self._stored() if stored else None
        return self._samples[key] if activations is None else self._of(activations, key[1])

    def _of(self, activations: Rows, indices: Tensor) -> DomainBatch:
        labels, stored = labels_of(self._labels, indices), activations[indices]
        if isinstance(labels, Boxes):
            labels = labels.resized(stored.sizes)  # as its transform does
        return DomainBatch(labels=labels, indices=indices, stored=stored)

    @functools.cached_property
    def _samples(self) -> TransformedSamples:
        views = {name: (prepared(), transform) for name, (prepared, transform) in self._views.items()}
        return TransformedSamples(self._prepared(), self._labels, self._transform, views)

    @property
    def _slow(self) -> bool:
        versions = [(self._samples.prepared, self._transform), *self._samples.views.values()]
        return any(
            getattr(prepared, "slow", False) or (transform.augment is not None and transform.augment.slow)
            for prepared, transform in versions
        )

    @functools.cached_property
    def _workers(self) -> DataLoader:
        # The processes of hydra/launcher=joblib have a start method of their own, which workers cannot use.
        in_joblib = multiprocessing.get_start_method(allow_none=True) == "loky"
        return DataLoader(
            self._samples,
            batch_size=None,  # the sampler's keys are whole batches
            sampler=self.batch_sampler,
            collate_fn=as_it_is,
            num_workers=self.num_workers,
            persistent_workers=True,
            multiprocessing_context="fork" if in_joblib else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=leave_signals_to_parent,
            generator=torch.Generator(),  # a DataLoader draws a seed that we do not use: not from the global state
        )


class ResumableLoader(Loader):
    """Training loader whose position is saved in checkpoints (Lightning calls `state_dict` and `load_state_dict`).

    The position belongs to an epoch: in any other epoch iteration begins at the first step.
    """

    batch_sampler: TrainBatches
    _position = (0, 0)  # (epoch, batches given out in it)
    _resumes = False

    def __iter__(self) -> Iterator[DomainBatch]:
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


class EvalLoader(Loader):
    """Evaluation loader, whose batches say which domain they are of: `{domain: batch}`."""

    def __init__(self, domain: str, *args: Any) -> None:
        super().__init__(*args)
        self.domain = domain

    def __iter__(self) -> Iterator[dict[str, DomainBatch]]:
        for batch in super().__iter__():
            yield {self.domain: batch}


def leave_signals_to_parent(worker: int) -> None:
    """In a worker: go on while the main process finishes and saves, although a signal came to the whole group.

    The main process ends its workers itself, and in need with a SIGTERM, of which only its own counts.
    """
    for signum in signals.ALL:
        if signum != signal.SIGTERM:
            signal.signal(signum, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS and Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=exit_with_parents_sigterm, args=(os.getppid(),), daemon=True).start()


def exit_with_parents_sigterm(parent: int) -> None:
    """Wait for a SIGTERM from this process and end with it."""
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)


def as_it_is(batch: Any) -> Any:
    """Collates nothing: the samples are whole batches."""
    return batch
