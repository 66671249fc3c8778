"""What Graft raises on purpose."""

from collections.abc import Sequence
from typing import Any


class GraftError(Exception):
    """A user's mistake; the message is whole: the key or file, the value, what is allowed and the next command."""


class FolderRefused(GraftError):
    """A folder that is not Graft's to write to, or in which another process works; nothing in it was changed."""


class LaunchRefused(BaseException):
    """A command that does not begin. No Exception: Hydra makes a warning of those that its callbacks raise."""


class Diverged(Exception):
    """Training met values that are not finite and stopped; the message is whole: what, where, and what to do."""


class Interrupted(Exception):
    """Training was stopped with Ctrl-C after saving what was reached; the message names the checkpoint."""


def first_line(error: Any) -> str:
    """The first line of an error, which is enough inside a message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def listed(names: Sequence[str], shown: int = 3, separator: str = ", ") -> str:
    """The first names, and how many more there are."""
    more = f"{separator}and {len(names) - shown:,} more" if len(names) > shown else ""
    return separator.join(names[:shown]) + more
