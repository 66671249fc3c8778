"""Which samples make up which batch, as a pure function of (seed, epoch, step): a resumed run draws the same."""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Sampler

from graft.data.samples import generator, seed_of

POOL = 50  # batches among which samples are sorted by length
PADDING = 1 / 6  # of a batch's numbers, from which on it comes in parts
MOST_PARTS = 8  # of a batch: small ones take longer a sample

Key = tuple[int, Tensor]  # a batch: seed of its augmentation, indices (B,) of its samples


def rank_and_world() -> tuple[int, int]:
    """This process's number and how many there are; (0, 1) without distribution."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class TrainBatches(Sampler[Key]):
    """Batches for training; every process gets the same number of samples.

    `steps=None`: each epoch is one permutation of the samples, the last batch may be smaller. `steps=n`: n full batches
    an epoch from an endless stream of permutations, so that step k of a run always gets the same samples. `weights`
    `(N,)` draw each permutation with replacement instead. `fixed` repeats the first epoch, for overfitting on purpose.
    `lengths` gives those of all samples `(N,)` where batches are to be of samples of about one length; it is called
    when the first batch is drawn.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        seed: object,
        steps: int | None = None,
        weights: Tensor | None = None,
        fixed: bool = False,
        lengths: Callable[[], Tensor] | None = None,
    ) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.seed = seed
        self.steps = steps
        self.weights = weights
        self.fixed = fixed
        self.lengths = lengths
        self.epoch = 0
        self.start = 0  # first step of the next iteration, for a run that resumes inside an epoch
        self._last: tuple[int, Tensor] | None = None

    @property
    def sampler(self) -> "TrainBatches":
        """Itself: Lightning looks for `set_epoch` on a batch sampler's sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = 0 if self.fixed else epoch

    def __len__(self) -> int:
        if self.steps is not None:
            return self.steps
        per_process = self.samples // rank_and_world()[1]
        batches, rest = divmod(per_process, self.batch_size)
        lonely = rest == 1 and batches > 0  # BatchNorm cannot train on a batch of one
        return batches + (rest > 0 and not lonely)

    def __iter__(self) -> Iterator[Key]:
        for step in range(self.start, len(self)):
            yield self.key(step, rank_and_world()[0])

    def key(self, step: int, rank: int) -> Key:
        """The batch of a process at a step of the current epoch."""
        return seed_of(self.seed, "batch", self.epoch, step, rank), self.indices(step, rank)

    def indices(self, step: int, rank: int) -> Tensor:
        """Samples `(B,)` of a process at a step of the current epoch."""
        _, world = rank_and_world()
        size = self.batch_size * world
        if self.steps is None:
            usable = self.samples // world * world
            return self._order(self.epoch)[:usable][step * size : (step + 1) * size][rank::world]
        first = (self.epoch * self.steps + step) * size
        positions = torch.arange(first + rank, first + size, world)
        cycles = (positions // self.samples).unique_consecutive(return_counts=True)
        pieces = zip(cycles[0].tolist(), (positions % self.samples).split(cycles[1].tolist()), strict=True)
        return torch.cat([self._order(cycle)[indices] for cycle, indices in pieces])

    def _order(self, cycle: int) -> Tensor:
        """The cycle-th permutation `(N,)`, or as many draws by weight."""
        if self._last is None or self._last[0] != cycle:
            random = generator(self.seed, "order", cycle)
            if self.weights is None:
                order = torch.randperm(self.samples, generator=random)
            else:
                order = self.weights.multinomial(self.samples, replacement=True, generator=random)
            if self.lengths is not None:
                order = bucketed(order, self.lengths(), self.batch_size * rank_and_world()[1], random)
            self._last = (cycle, order)
        return self._last[1]


class SemiBatches(TrainBatches):
    """Batches of a target that is partly labelled: labelled samples, then unlabelled ones, which an epoch goes through.

    The labelled ones come from an endless stream of permutations; indices are those of the whole split.
    """

    def __init__(self, labelled: TrainBatches, unlabelled: TrainBatches) -> None:
        samples, size = labelled.samples + unlabelled.samples, labelled.batch_size + unlabelled.batch_size
        super().__init__(samples, size, labelled.seed, unlabelled.steps, fixed=labelled.fixed)
        self.labelled, self.unlabelled = labelled, unlabelled

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        super().set_epoch(epoch)
        self.labelled.set_epoch(epoch)
        self.unlabelled.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.unlabelled)

    def indices(self, step: int, rank: int) -> Tensor:
        """Samples of a process at a step of the current epoch."""
        behind = self.unlabelled.indices(step, rank) + self.labelled.samples
        return torch.cat([self.labelled.indices(step, rank), behind])


class EvalBatches(Sampler[Key]):
    """Every sample once, spread over the processes without padding; each gets the same number of batches.

    They come in order; where `lengths` gives those of all samples `(N,)`, each batch holds samples of about one length,
    and which batch comes when is shuffled, so that the first ones stand for all. Where they are not `shared`, every
    process gets all of them. `seed` is for what is random in a batch. With `parts` a batch comes in as many parts as
    keep padding small, so that there are more batches than `len` says; nobody waits for another process then.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        seed: object = None,
        shared: bool = True,
        lengths: Callable[[], Tensor | None] = lambda: None,
        parts: bool = False,
    ) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.seed = seed
        self.shared = shared
        self.lengths = lengths
        self.parts = parts

    def __len__(self) -> int:
        largest_share = -(-self.samples // self._rank_and_world()[1])
        return -(-largest_share // self.batch_size)

    def __iter__(self) -> Iterator[Key]:
        rank, world = self._rank_and_world()
        lengths = self.lengths()
        order = torch.arange(self.samples) if lengths is None else lengths.argsort(stable=True)
        batches: Sequence[Tensor] = order[rank::world].tensor_split(len(self))
        if lengths is not None and self.parts:
            smallest = max(1, self.batch_size // MOST_PARTS)
            batches = [part for batch in batches for part in little_padded(batch, lengths, smallest)]
        if lengths is not None:
            batches = [batches[index] for index in torch.randperm(len(batches), generator=generator("evaluation"))]
        for step, indices in enumerate(batches):
            yield seed_of(self.seed, "batch", step), indices

    def _rank_and_world(self) -> tuple[int, int]:
        return rank_and_world() if self.shared else (0, 1)


def little_padded(batch: Tensor, lengths: Tensor, smallest: int) -> Sequence[Tensor]:
    """A batch `(B,)` sorted by length, in parts of at least `smallest` where over PADDING of it would be padding."""
    begin, total, cuts = 0, 0, []
    for place, length in enumerate(lengths[batch].tolist()):
        total += length
        large = min(place - begin, len(batch) - place) >= smallest
        if large and total < (1 - PADDING) * length * (place + 1 - begin):
            cuts.append(place)
            begin, total = place, length
    return batch.tensor_split(cuts)


def bucketed(order: Tensor, lengths: Tensor, size: int, random: torch.Generator) -> Tensor:
    """An order `(N,)` in which batches of `size` hold samples of about one length; which batch comes when is random.

    Sorted is within POOL batches, so that the members of a batch change from epoch to epoch.
    """
    whole = len(order) // size * size
    if not whole:
        return order
    pools = order[:whole].split(size * POOL)
    batches = torch.cat([pool[lengths[pool].argsort(stable=True)] for pool in pools]).view(-1, size)
    return torch.cat([batches[torch.randperm(len(batches), generator=random)].flatten(), order[whole:]])


def balanced_weights(labels: Tensor) -> Tensor:
    """Weight `(N,)` of each sample so that every class is drawn equally often."""
    return 1.0 / labels.bincount()[labels].double()
