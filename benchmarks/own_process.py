"""A Python function in a process of its own, so that no measurement inherits another's memory, threads or caches."""

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

SPAWN = multiprocessing.get_context("spawn")  # a fork would inherit this process's threads in an unusable state


class ProcessError(Exception):
    """A function that failed in its process; the message is the traceback there."""


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns in a new process; raises ProcessError where it fails there."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=answer, args=(theirs, function, *arguments))
    process.start()
    theirs.close()  # so that a process that dies is noticed as the end of the pipe
    try:
        failed, value = receive(ours)
    finally:
        process.join()
    if failed:
        raise ProcessError(value)
    return value


def receive(connection: Connection) -> Any:
    """The next message of a process; ProcessError where it died without one."""
    try:
        return connection.recv()
    except EOFError:
        raise ProcessError("the process died without a message; memory may have run out") from None


def answer(connection: Connection, function: Callable[..., Any], *arguments: Any) -> None:
    """What runs in the new process: send (failed?, the result or the traceback)."""
    try:
        connection.send((False, function(*arguments)))
    except Exception:
        connection.send((True, traceback.format_exc()))
