"""`make chaos` and `make fuzz` in processes of their own, because they change what libraries do."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def proved(name, *arguments):
    """The exit code and what was printed, with this checkout's code and one thread."""
    environment = os.environ | {"PYTHONPATH": f"{PROJECT / 'src'}{os.pathsep}{PROJECT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"tests.proof.{name}", *map(str, arguments)]
    outcome = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)
    return outcome.returncode, outcome.stdout + outcome.stderr
