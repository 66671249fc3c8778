"""Training data that do not fit: samples that are read once an epoch, in an order that a seed decides."""

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from graft.data.samples import Split
from graft.errors import GraftError

APART = 2**32  # numbers between the first samples of two shards of which nobody knows how many they hold


@dataclass(frozen=True)
class Stored:
    """A sample as it is stored: read, and not decoded yet."""

    index: int  # in the stream, whatever the order
    place: str  # what messages call it
    content: bytes
    label: int | None  # number of its class
    problem: str = ""  # why it cannot be used


@dataclass(frozen=True)
class Unusable:
    """A sample that was left out of its batch."""

    place: str
    problem: str


@dataclass(frozen=True)
class Places:
    """What messages call each sample of a stream, by its index."""

    shards: Sequence[str]
    offsets: Sequence[int]  # index of each shard's first sample

    def __getitem__(self, index: int) -> str:
        shard = bisect.bisect_right(self.offsets, index) - 1
        return f"{self.shards[shard]}, sample {index - self.offsets[shard]}"


@dataclass(frozen=True)
class StreamLabels:
    """That there are labels, and of how many samples; they are read with the samples."""

    length: int

    def __len__(self) -> int:
        return self.length


@dataclass(frozen=True)
class Stream:
    """A training split that no one reads as a whole; it stands where a `Split` stands elsewhere.

    `open(seed, rank, world, start)` gives a process's samples of one pass, without the first `start`; every process
    gets as many. Where `length` is None nobody knows how many samples there are: a process's pass ends with its shards.
    `decode` makes a split of a batch's samples, and with its second argument looks into each for why it is unusable;
    `prepare` is a transform's own for such a split. `first` holds a few samples that were read beforehand, for what
    only wants to see some.
    """

    open: Callable[[int, int, int, int], Iterator[Stored]]
    decode: Callable[[Sequence[Stored], bool], tuple[Split, Tensor, list[Unusable]]]  # the second: indices `(B,)`
    prepare: Callable[[Any, Split], Any]
    length: int | None
    fingerprint: str
    key: str  # of the config, such as data.target
    first: Split
    places: Places
    labels: Any  # StreamLabels; None where the domain counts as unlabelled
    skips: bool  # whether samples that cannot be used are left out; else the first of them ends the run
    sources = None
    partly_labelled = False

    def __len__(self) -> int:
        if self.length is None:
            raise self.refusal("data.epoch=target", "nobody knows how long an epoch is; set data.epoch=<steps>")
        return self.length

    def refusal(self, what: str, why: str = "it needs all training samples at hand") -> GraftError:
        """The error of something that cannot be meant with a stream."""
        return GraftError(
            f"{what}: {self.key} is read as a stream, and {why}. docs/streaming.md says what goes with one."
        )

    def __getattr__(self, name: str) -> Any:
        """What a `Split` has and a stream has not: refused by name, whoever asks."""
        if name in ("inputs", "columns", "groups", "subset", "labelled"):
            raise self.refusal(f"the {name} of {self.key}'s training samples")
        raise AttributeError(name)


def whole(train: Split | Stream) -> Split:
    """Training samples that are at hand; GraftError for a stream."""
    if isinstance(train, Stream):
        raise train.refusal("a pass over all training samples, which a term, a cache or what the run keeps asks for")
    return train
