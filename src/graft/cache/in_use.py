"""Which files are in use: who maps one holds a shared lock on it, and who wants to remove it needs all of them alone.

The locks are the system's own (flock): they end with the process that holds them, however it ends. Windows has none;
there the system itself does not let a mapped file's folder be renamed. Where a file system has none nothing counts as
unused.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]  # Windows has none


class InUse(Exception):
    """Somebody holds a file, in this process or another one."""


def hold(opened: BinaryIO) -> None:
    """Mark a file as in use until its last descriptor is closed; a map and forked processes have copies of it."""
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(opened, fcntl.LOCK_SH)


@contextmanager
def unused(folder: Path) -> Iterator[None]:
    """Keep others from using a folder's files inside the block; raises InUse where somebody does."""
    with ExitStack() as stack:
        for file in folder.iterdir() if fcntl is not None else ():
            try:
                opened = stack.enter_context(file.open("r+b"))
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InUse(str(file)) from error
        yield
