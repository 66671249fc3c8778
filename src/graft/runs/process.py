"""Which process this is among all that may look at a shared folder, and whether another one still runs."""

import functools
import os
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def is_main_process() -> bool:
    """False in the processes that Lightning starts beside this one for distributed training."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


@functools.cache
def machine() -> str:
    """Where process ids mean the same as here: this boot of this host, and on Linux this container of it."""
    found = [socket.gethostname()]
    with suppress(OSError):
        found.append((PROC / "sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        found.append(os.readlink(PROC / "self/ns/pid"))
    return " ".join(found)


def start_of(pid: int) -> str | None:
    """When a process of this machine began, in the system's own units; None where there is none or it is dead.

    An id alone says little: ids are given again.
    """
    if has_proc():
        try:
            fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    try:
        shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return shown.stdout.strip() or None


def is_running(pid: int, started: str | None) -> bool | None:
    """Whether a process of this machine, known by its id and its start, still runs; None where that is unknown.

    Some systems hide the processes of other users.
    """
    if start := start_of(pid):
        return None if started is None else start == started
    if os.name != "posix":
        return None  # there os.kill() would end it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return None
    return False if has_proc() else None  # of a process that has ended and whose parent has not looked yet


def has_proc() -> bool:
    """Whether processes are files here, as on Linux."""
    return (PROC / "self/stat").exists()
