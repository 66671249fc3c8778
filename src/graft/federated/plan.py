"""Who takes part in which round, as a pure function of (seed, round): a resumed run asks the same clients."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from graft.data.samples import generator


@dataclass(frozen=True)
class Visit:
    """A client that trains and answers in a round, and how many optimizer steps it takes."""

    client: int
    steps: int


@dataclass(frozen=True)
class Round:
    """Clients in the order in which they were asked, those that failed, and the visits of the others."""

    asked: tuple[int, ...]
    dropped: tuple[int, ...]
    visits: tuple[Visit, ...]

    @functools.cached_property
    def ends(self) -> tuple[int, ...]:
        """The step, counted over the round, at which each visit is done."""
        return tuple(itertools.accumulate(visit.steps for visit in self.visits))

    @property
    def steps(self) -> int:
        """Optimizer steps of all visits."""
        return self.ends[-1]

    def at(self, step: int) -> tuple[Visit, int]:
        """The visit that a step of the round belongs to, and the step's number in it."""
        place = next(place for place, end in enumerate(self.ends) if step < end)
        visit = self.visits[place]
        return visit, step - (self.ends[place] - visit.steps)


class Plan:
    """The rounds of a federation whose clients take `steps` optimizer steps each."""

    def __init__(self, steps: Sequence[int], participation: float, drop_out: float, seed: object) -> None:
        self.steps = tuple(steps)
        self.asked = max(1, round(participation * len(steps)))
        self.drop_out = drop_out
        self.seed = seed

    @functools.lru_cache(maxsize=4)  # noqa: B019 - a plan lives as long as its run
    def round(self, number: int) -> Round:
        """A round by its number from 0; where every client fails, others are asked until one answers."""
        asked: list[int] = []
        dropped: list[int] = []
        for attempt in itertools.count():
            random = generator(self.seed, "round", number, attempt)
            chosen = torch.randperm(len(self.steps), generator=random)[: self.asked].sort().values.tolist()
            fails = (torch.rand(len(chosen), generator=random, dtype=torch.float64) < self.drop_out).tolist()
            asked += chosen
            dropped += [client for client, failed in zip(chosen, fails, strict=True) if failed]
            if answering := [client for client, failed in zip(chosen, fails, strict=True) if not failed]:
                return Round(tuple(asked), tuple(dropped), tuple(Visit(one, self.steps[one]) for one in answering))
        raise AssertionError("without end")
