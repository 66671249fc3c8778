"""Signals that stop a run: Ctrl-C, and SIGTERM and SIGUSR1, which a scheduler sends before it takes the machine away.

Only a second Ctrl-C stops at once: a scheduler's signals may arrive several times, from it, from the launcher and
through the process group.

A job that submitit handed to SLURM gets SIGUSR2 before its time is over, and with it a SIGTERM that submitit leaves
out: there SIGUSR2 alone stops, and submitit's own handler puts the job back into the queue.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

IN_SUBMITIT = "SUBMITIT_EXECUTOR" in os.environ  # set in its jobs
NAMES = (f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}",) if IN_SUBMITIT else ("SIGTERM", "SIGUSR1")
SCHEDULER = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
ALL = (signal.SIGINT, *SCHEDULER)
STDERR = 2


@dataclass
class State:
    """What this process was asked for."""

    asked: int | None = None  # the first of a scheduler's signals


STATE = State()


class Stopped(KeyboardInterrupt):
    """A scheduler's signal where there is nothing to finish or save."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


def name_of(signum: int) -> str:
    """As messages call it."""
    return "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name


def how_stopped(signum: int) -> str:
    """The beginning of a message about what a signal stopped."""
    return "Interrupted" if signum == signal.SIGINT else f"Stopped by {name_of(signum)}"


def exit_code(signum: int) -> int:
    """130 after Ctrl-C, 143 after a scheduler's signal."""
    return 130 if signum == signal.SIGINT else 143


def say(signum: int, text: str) -> None:
    """Print from a handler: not with print(), which it may have interrupted and which cannot be entered twice."""
    more = " Press it again to stop at once." if signum == signal.SIGINT else ""
    os.write(STDERR, f"\n{name_of(signum)}: {text}{more}\n".encode())


@contextmanager
def scheduler_signals() -> Iterator[None]:
    """Raise `Stopped` for a scheduler's first signal in the block, where nothing else handles it."""
    if not in_main_thread():
        yield
        return
    STATE.asked = None
    with restored():
        for signum in SCHEDULER:
            if IN_SUBMITIT or signal.getsignal(signum) == signal.SIG_DFL:
                signal.signal(signum, stop)
        yield


def stop(signum: int, frame: FrameType | None) -> None:
    """Handler that raises `Stopped`, once: what follows the first signal is cleaning up."""
    if STATE.asked is None:
        STATE.asked = signum
        raise Stopped(signum)


def take_over(handler: Callable[[int, FrameType | None], Any]) -> dict[int, Any]:
    """Handle all of these signals; returns the handlers of before."""
    return {signum: signal.signal(signum, handler) for signum in ALL}


def give_back(handlers: Mapping[int, Any]) -> None:
    """Put handlers of before back, but those that were not set by Python."""
    for signum, handler in handlers.items():
        if handler is not None:
            signal.signal(signum, handler)


@contextmanager
def restored() -> Iterator[None]:
    """Put the handlers of before back after the block."""
    handlers = {signum: signal.getsignal(signum) for signum in ALL}
    try:
        yield
    finally:
        if in_main_thread():
            give_back(handlers)


def in_main_thread() -> bool:
    """Whether handlers may be set here."""
    return threading.current_thread() is threading.main_thread()
