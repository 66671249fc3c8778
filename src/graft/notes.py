"""Lines that a process prints once."""

import functools

from graft.runs.process import is_main_process


@functools.cache
def say_once(line: str) -> None:
    """Print a line in the main process, unless it has printed it already."""
    if is_main_process():
        print(line, flush=True)
