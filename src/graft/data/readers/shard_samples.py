"""Samples of shards as they are stored: which files are one, its label as a word, and the order of a pass."""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice

from graft.data.readers.shard_order import pieces_of, positions, shard_order, shuffled
from graft.data.readers.shards import INDICES, Damaged, Entry, Place
from graft.data.stream import APART, Places, Stored
from graft.errors import GraftError
from graft.notes import say_once


@dataclass(frozen=True)
class Files:
    """Which of a sample's files, by their endings, are its input and its label."""

    inputs: frozenset[str]  # the first one that is there counts
    label: str
    field: str  # of a JSON file, the name of the value that is the label; empty: the whole file is
    noun: str

    @property
    def endings(self) -> tuple[str, ...]:
        """Those that are read."""
        return (*self.inputs, self.label)

    def word(self, entry: Entry) -> tuple[str | None, str]:
        """The label of a sample, or why there is none."""
        if (content := entry.files.get(self.label)) is None:
            return None, f"it has no file .{self.label} with its label"
        try:
            text = content.decode()
            if not self.field:
                return (text.strip(), "") if text.strip() else (None, f"its .{self.label} is empty")
            value = json.loads(text)[self.field]
        except UnicodeDecodeError:
            return None, f"its .{self.label} is no text"
        except (ValueError, KeyError, TypeError):
            return None, f"its .{self.label} has no value {self.field!r}"
        return (str(value), "") if isinstance(value, str | int) else (None, f"its label {value!r} is no label")


@dataclass(frozen=True)
class Lost:
    """A sample that a shard should have."""

    number: int
    problem: str


Labelled = tuple[Stored, str | None]  # a sample and its label as a word, of which there is none where it has none


@dataclass(frozen=True)
class Shards:
    """Some shards of one place, and how many samples each holds; None where nobody knows."""

    place: Place
    names: Sequence[str]
    sizes: Sequence[int] | None
    files: Files

    @functools.cached_property
    def places(self) -> Places:
        """What messages call each sample."""
        sizes = self.sizes or [APART] * len(self.names)
        return Places(self.names, [0, *accumulate(sizes[:-1])])

    def __iter__(self) -> Iterator[Labelled]:
        """All samples, shard by shard."""
        for shard in range(len(self.names)):
            yield from self.samples(shard)

    def samples(self, shard: int, start: int = 0, stop: int | None = None) -> Iterator[Labelled]:
        """Samples of a shard, in their order."""
        return (self._stored(shard, entry) for entry in self._entries(shard, start, stop))

    def _entries(self, shard: int, start: int, stop: int | None) -> Iterator[Entry | Lost]:
        """Samples of a shard; of those that its damage took, that they are lost."""
        stop = stop if stop is not None or self.sizes is None else self.sizes[shard]
        following, problem = start, "is not in its shard, which has fewer than its index says"
        try:
            for entry in self.place.entries(self.names[shard], start, self.files.endings):
                if stop is not None and entry.number >= stop:
                    if self.sizes and stop == self.sizes[shard]:
                        say_once(f"{self.names[shard]} has more samples than its index says: they are left out")
                    return
                yield entry
                following = entry.number + 1
        except Damaged as damage:
            problem = f"is lost: its shard cannot be read on ({damage})"
            stop = following + 1 if stop is None else stop
        for lost in range(following, stop or 0):
            yield Lost(lost, problem)

    def _stored(self, shard: int, entry: Entry | Lost) -> Labelled:
        index, name = self.places.offsets[shard] + entry.number, self.names[shard]
        if isinstance(entry, Lost):
            return Stored(index, f"{name}, sample {entry.number}", b"", None, f"it {entry.problem}"), None
        place = f"{name}, {entry.key}"
        content = next((content for ending, content in entry.files.items() if ending in self.files.inputs), None)
        word, problem = self.files.word(entry)
        if content is None:
            one = f".{next(iter(self.files.inputs))}" if len(self.files.inputs) == 1 else f"of {self.files.noun}"
            return Stored(index, place, b"", None, f"it has no file {one}"), word
        return Stored(index, place, content, None, problem), word

    def in_order(
        self,
        numbered: Callable[[Stored, str | None], Stored],
        buffer: int,
        seed: int,
        rank: int,
        world: int,
        start: int,
    ) -> Iterator[Stored]:
        """A process's samples of one pass, without the first `start`, which are not read where sizes are known.

        `numbered` gives each its label.
        """
        order = shard_order(len(self.names), seed)
        if self.sizes is not None:
            yield from self._known(self.sizes, numbered, order, buffer, seed, rank, world, start)
            return
        if len(order) < world:
            raise GraftError(
                f"{self.place.key}={self.place.root}: {len(order)} shards cannot feed {world} processes while no "
                f"{INDICES[0]} says how many samples each has. Make more of them, or write that file."
            )
        samples = (numbered(*one) for shard in order[rank::world] for one in self.samples(shard))
        yield from islice(shuffled(samples, buffer, seed), start, None)

    def _known(
        self,
        sizes: Sequence[int],
        numbered: Callable[[Stored, str | None], Stored],
        order: Sequence[int],
        buffer: int,
        seed: int,
        rank: int,
        world: int,
        start: int,
    ) -> Iterator[Stored]:
        """The same by positions in the process's pieces: those that came before `start` are skipped, shard by shard."""
        wanted, out = positions(sum(sizes) // world, buffer, seed, start)

        def one_by_one() -> Iterator[tuple[int, Stored]]:
            before = 0
            for piece in pieces_of(order, sizes, rank, world):
                number = piece.stop - piece.start
                given_out = out[before : before + number]
                if given_out.count(1) < number:  # else no sample of it is wanted any more
                    skip = max(given_out.find(0), 0) if len(given_out) == number else 0
                    first = piece.start + skip
                    for position, one in enumerate(self.samples(piece.shard, first, piece.stop), before + skip):
                        if position >= len(out) or not out[position]:
                            yield position, numbered(*one)
                before += number

        reader, waiting = one_by_one(), {}
        for position in wanted:
            while position not in waiting:
                read, stored = next(reader)
                waiting[read] = stored
            yield waiting.pop(position)
