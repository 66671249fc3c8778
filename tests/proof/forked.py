"""A function in a child of this process, which has imported everything already: a run in a second, and safe to kill."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def forked(work: Callable[[], Any], log: Path, limit_s: int = 600) -> int:
    """The child's exit code, negative for the signal that ended it; what it prints goes to a file."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(limit_s)  # ends the child where it hangs
            with log.open("w") as file:
                os.dup2(file.fileno(), sys.stdout.fileno())
                os.dup2(file.fileno(), sys.stderr.fileno())
                sys.stdout = sys.stderr = file
                try:
                    work()
                    code = 0
                except BaseException:
                    traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
