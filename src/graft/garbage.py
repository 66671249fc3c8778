"""What Python's garbage collector passes over: the hundred thousands of objects that imports have made."""

import atexit
import functools
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@functools.cache
def freeze_libraries() -> None:
    """Let the garbage collector leave out what libraries hold to the end: going through it takes 0.3 s each time.

    Once a process; asking gc how much is frozen would go through it as well.
    """
    gc.freeze()
    atexit.register(gc.unfreeze)


@contextmanager
def libraries_left_alone() -> Iterator[None]:
    """The same for a while: the collector looks at all again and again while many samples are read."""
    if freeze_libraries.cache_info().currsize or gc.get_freeze_count():  # frozen before, by a job or by somebody else
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
