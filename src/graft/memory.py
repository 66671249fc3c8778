"""The memory that this process has taken; read without torch."""

import re
import sys
from pathlib import Path


def peak_process_memory() -> int | None:
    """Bytes at most, with Python and its libraries; None where nobody knows."""
    if sys.platform == "linux":  # getrusage counts what the parent process had when it started this one
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found is not None  # Linux always writes it
        return int(found[1]) * 2**10
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)
