"""Latencies of several networks that take turns, so that a slow minute of the machine hits all alike."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graft.bench.worker import BATCHES, serve
from graft.errors import GraftError

SPAWN = multiprocessing.get_context("spawn")  # a fork would share this process's memory
CALLS = {1: 5, 32: 1}  # by batch size, that are timed in each round


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a batch: the median, and what 5 and 95 % of the calls stay below."""

    median: float
    low: float
    high: float


@dataclass
class Costs:
    """Latencies by (threads, batch size), and the peak memory of a process that predicts, in MB."""

    latency: dict[tuple[int, int], Latency] = field(default_factory=dict)
    memory_mb: float | None = None


class Seat:
    """This side of a worker."""

    def __init__(self, place: Path, threads: int, allow: Sequence[str]) -> None:
        self.place, self.threads, self.allow = place, threads, allow

    def __enter__(self) -> "Seat":
        self.connection, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=serve, args=(theirs, self.place, self.threads, self.allow))
        self.process.start()
        theirs.close()  # so that a process that dies is noticed as the end of the pipe
        self.receive()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self.connection.send(None)
            self.process.join(10)
        except OSError:
            pass  # it is gone already
        if self.process.is_alive():
            self.process.kill()
        self.process.join()

    def ask(self, request: Any) -> Any:
        """The answer to a request; GraftError where the worker failed."""
        self.connection.send(request)
        return self.receive()

    def receive(self) -> Any:
        """The worker's next message."""
        try:
            message = self.connection.recv()
        except EOFError:
            message = "the process died, maybe for lack of memory"
        if isinstance(message, str) and message != "ready":
            raise GraftError(f"graft bench {self.place}: {message}")
        return message


def all_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure(
    places: Sequence[Path], rounds: int, allow: Sequence[str], tick: Callable[[], object] = lambda: None
) -> list[Costs]:
    """What each network costs on one core and on all; `tick` is called after each round."""
    found = [Costs() for _ in places]
    for threads in dict.fromkeys((1, all_cores())):
        seconds: dict[tuple[int, int], list[float]] = {(index, b): [] for index in range(len(places)) for b in BATCHES}
        with ExitStack() as stack:
            seats = [stack.enter_context(Seat(place, threads, allow)) for place in places]
            for number in range(rounds):
                order = list(enumerate(seats))[:: -1 if number % 2 else 1]  # nobody always follows the same one
                for index, seat in order:
                    for size in BATCHES:
                        seconds[index, size] += seat.ask((size, CALLS[size]))
                tick()
            for costs, seat in zip(found, seats, strict=True):
                costs.memory_mb = seat.ask("memory") if threads == 1 else costs.memory_mb
        for (index, size), values in seconds.items():
            low, median, high = (1000 * float(value) for value in np.quantile(values, [0.05, 0.5, 0.95]))
            found[index].latency[threads, size] = Latency(median, low, high)
    return found
