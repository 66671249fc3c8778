"""Fits that take turns: each in its own process, an epoch at a time, while the others wait.

Every contestant trains as its library does, in one fit of several epochs, and only calls `turn.begin()` where an epoch
begins. The call ends the clock of the epoch before, hands the machine over and returns when the contestant's next turn
comes. So an epoch is everything from one epoch's begin to the next: batches, metrics, what is logged at its end. The
first one warms up and does not count.
"""

import importlib.util
import os
import pty
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NoReturn

import psutil
import torch

from benchmarks.measure import interleave
from benchmarks.own_process import SPAWN, ProcessError, receive

WARM_UP = 1  # epochs of each launch that do not count
ROUNDS = 5  # epochs of a launch that count, before all processes start anew


@dataclass(frozen=True)
class Plan:
    """What every contestant trains: the same images, network, batches and number of epochs."""

    images: Path  # a file that `images.store` wrote
    network: str  # a name that `peers.networks.build` knows
    folder: Path  # where a contestant may write
    overrides: tuple[str, ...] = ()  # the same in Graft's words
    batch_size: int = 64
    lr: float = 0.01
    threads: int = 1
    epochs: int = 0  # set by `compete`: how often a contestant begins an epoch


@dataclass(frozen=True)
class Epoch:
    """What an epoch cost. `helpers_cpu_s` is CPU time of processes that the contestant started, such as W&B's."""

    seconds: float
    cpu_s: float
    helpers_cpu_s: float


@dataclass(frozen=True)
class Contestant:
    """A fit that takes turns; `needs` names the packages that it cannot do without."""

    name: str
    fit: Callable[["Plan", "Turn"], None]
    needs: tuple[str, ...] = ()

    @property
    def installed(self) -> bool:
        """Whether its packages are there."""
        return all(importlib.util.find_spec(package) for package in self.needs)


class Finished(Exception):
    """Ends a contestant's fit from inside, when no turn is left."""


class Turn:
    """A contestant's side: it calls `begin` at the begin of each epoch."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.started: float | None = None
        self.cpu_before = 0.0
        self.helpers_before = 0.0

    def begin(self) -> None:
        """Report the epoch that has ended and wait for the next turn; raises Finished when there is none."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        ended, cpu = time.perf_counter(), time.process_time()
        if self.started is None:
            self.connection.send("ready")
        else:
            helpers = helpers_cpu_seconds()
            # A helper goes on after the epoch's end: what it did while the others had their turn counts as well.
            self.connection.send(Epoch(ended - self.started, cpu - self.cpu_before, helpers - self.helpers_before))
            self.helpers_before = helpers
        if self.connection.recv() == "stop":
            raise Finished
        if self.started is None:
            self.helpers_before = helpers_cpu_seconds()
        self.started, self.cpu_before = time.perf_counter(), time.process_time()


def helpers_cpu_seconds() -> float:
    """CPU time so far of all processes below this one."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def take_part(connection: Connection, contestant: Contestant, plan: Plan) -> None:
    """What runs in a contestant's process."""
    try:
        show_on_a_hidden_terminal()
        torch.set_num_threads(plan.threads)
        torch.manual_seed(0)
        contestant.fit(plan, Turn(connection))
        raise RuntimeError(f"{contestant.name} ended its fit before its turns were over")
    except Finished:
        pass
    except BaseException:
        connection.send(traceback.format_exc())


def show_on_a_hidden_terminal() -> None:
    """Let the progress bars of all contestants draw as for a person, on a terminal that nobody looks at."""
    leader, follower = pty.openpty()
    for stream in (1, 2):
        os.dup2(follower, stream)
    threading.Thread(target=read_all, args=(leader,), daemon=True).start()


def read_all(stream: int) -> NoReturn:
    """Empty a terminal for ever: a full one would block who writes to it."""
    while True:
        os.read(stream, 1 << 16)


@dataclass
class Seat:
    """The other side of a Turn."""

    contestant: Contestant
    plan: Plan
    epochs: list[Epoch] = field(default_factory=list)

    def __enter__(self) -> "Seat":
        self.connection, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=take_part, args=(theirs, self.contestant, self.plan))
        self.process.start()
        theirs.close()  # so that a process that dies is noticed as the end of the pipe
        try:
            self.expect("ready")
        except ProcessError:
            self.process.join()
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self.connection.send("stop")
            self.process.join(30)
        except OSError:
            pass  # it is gone already
        if self.process.is_alive():
            self.process.kill()
        self.process.join()

    def epoch(self) -> float:
        """Seconds of one more epoch."""
        self.connection.send("go")
        self.epochs.append(self.expect(Epoch))
        return self.epochs[-1].seconds

    def expect(self, kind: Any) -> Any:
        """The contestant's next message; ProcessError where it is a traceback instead."""
        message = receive(self.connection)
        if message == kind or (isinstance(kind, type) and isinstance(message, kind)):
            return message
        raise ProcessError(f"{self.contestant.name} failed:\n{message}")


@dataclass
class Result:
    """What the contestants' epochs cost, round by round, and who could not take part."""

    seconds: dict[str, list[float]]
    epochs: dict[str, list[Epoch]]
    absent: dict[str, str] = field(default_factory=dict)


def compete(contestants: Sequence[Contestant], plan: Plan, repeats: int, required: int = 2) -> Result:
    """Interleaved epochs of all contestants; the first `required` must succeed, another that fails is left out.

    Where a process's memory happens to lie changes its speed by some per cent for its whole life, so that after some
    rounds all processes start anew.
    """
    absent = {c.name: "not installed" for c in contestants if not c.installed}
    present = [c for c in contestants if c.installed]
    seconds: dict[str, list[float]] = {}
    epochs: dict[str, list[Epoch]] = {}
    for rounds in launches(repeats):
        result = launch(present, plan, rounds, absent, required)
        present = [c for c in present if c.name not in absent]
        for name, taken in result.items():
            epochs.setdefault(name, []).extend(taken)
            seconds.setdefault(name, []).extend(epoch.seconds for epoch in taken)
    for name in absent:
        seconds.pop(name, None)
    return Result(seconds, epochs, absent)


def launches(repeats: int) -> list[int]:
    """Rounds of each launch: as even as possible, and no more than ROUNDS."""
    count = -(-repeats // ROUNDS)
    return [repeats // count + (number < repeats % count) for number in range(count)]


def launch(
    contestants: Sequence[Contestant], plan: Plan, rounds: int, absent: dict[str, str], required: int
) -> Mapping[str, list[Epoch]]:
    """The epochs of one launch of all contestants, without those that warm up; who fails goes to `absent`."""
    with ExitStack() as stack:
        seats: dict[str, Seat] = {}
        for number, contestant in enumerate(contestants):
            folder = Path(mkdtemp(prefix=f"{contestant.name}_", dir=plan.folder))  # nothing is left of other launches
            epochs = WARM_UP + rounds + 1  # the last one begins and never ends: its begin ends the one before
            try:
                seat = stack.enter_context(Seat(contestant, replace(plan, folder=folder, epochs=epochs)))
                for _ in range(WARM_UP):
                    seat.epoch()
            except ProcessError as error:
                if number < required:
                    raise
                absent[contestant.name] = str(error).strip().splitlines()[-1]
            else:
                seats[contestant.name] = seat
        interleave({name: seat.epoch for name, seat in seats.items()}, rounds)
        return {name: seat.epochs[WARM_UP:] for name, seat in seats.items()}
