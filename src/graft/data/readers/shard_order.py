"""In which order a process reads samples of shards: a function of a seed, so that a resumed run finds its place."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Piece:
    """Samples of a shard, from `start` to before `stop`."""

    shard: int
    start: int
    stop: int


def shard_order(shards: int, seed: int) -> list[int]:
    """Numbers of all shards in the order of a pass."""
    draw = random.Random(seed).random  # the one method whose numbers Python promises to keep
    numbers = [draw() for _ in range(shards)]
    return sorted(range(shards), key=numbers.__getitem__)


def pieces_of(order: Sequence[int], sizes: Sequence[int], rank: int, world: int) -> list[Piece]:
    """What a process reads of shards in an order: all processes the same number of samples, no sample twice.

    The shards' samples in a row are cut into as many stretches as there are processes, so that a shard is read by two
    only where a cut goes through it. Fewer samples than processes are left over, at the end of the row.
    """
    share = sum(sizes) // world
    first, last = rank * share, (rank + 1) * share
    pieces, before = [], 0
    for shard in order:
        start, stop = max(first - before, 0), min(last - before, sizes[shard])
        if start < stop:
            pieces.append(Piece(shard, start, stop))
        before += sizes[shard]
    return pieces


def shuffled(items: Iterator[T], size: int, seed: int) -> Iterator[T]:
    """The items in an order that a buffer of `size` mixes: each that comes in takes the place of one at random."""
    if size < 2:
        yield from items
        return
    draw = random.Random(seed).random
    buffer = list(islice(items, size))
    for item in items:
        place = int(draw() * size)
        out, buffer[place] = buffer[place], item
        yield out
    while buffer:
        place = int(draw() * len(buffer))
        buffer[place], buffer[-1] = buffer[-1], buffer[place]
        yield buffer.pop()


def positions(samples: int, size: int, seed: int, start: int) -> tuple[Iterator[int], bytearray]:
    """Positions in a process's pieces as the buffer gives them out, without the first `start`; and which those were.

    The second holds a byte for each position that was given out or waits in the buffer, 1 where it was given out.
    """
    order = shuffled(iter(range(samples)), size, seed)
    out = bytearray(min(start + max(size, 1), samples))
    for position in islice(order, start):
        out[position] = 1
    return order, out
