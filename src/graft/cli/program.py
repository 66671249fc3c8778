"""What the user typed to get here, so that messages name a command that works as it stands."""

import sys
from pathlib import Path


def program() -> str:
    """`graft train` or `python -m graft train` where that was used, else `python train.py`."""
    script = Path(sys.argv[0])
    if (script.parent.name, script.name) == ("graft", "__main__.py"):
        return "python -m graft train"
    return "graft train" if script.stem == "graft" else "python train.py"


def with_program(text: str) -> str:
    """A text that says `python train.py`, with the program that was used."""
    return text.replace("python train.py", program())
