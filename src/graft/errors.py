"""What Graft raises on purpose."""

import re
import signal
from collections.abc import Sequence
from typing import Any

HYDRA_WORDS = ("null", "true", "false", "inf", "nan")  # that are no texts where they are not quoted


class GraftError(Exception):
    """A user's mistake; the message is whole: the key or file, the value, what is allowed and the next command."""


class FolderRefused(GraftError):
    """A folder that is not Graft's to write to, or in which another process works; nothing in it was changed."""


class LaunchRefused(BaseException):
    """A command that does not begin. No Exception: Hydra makes a warning of those that its callbacks raise."""


class Diverged(Exception):
    """Training met values that are not finite and stopped; the message is whole: what, where, and what to do."""


class Pruned(Exception):
    """A study gave a trial up before its training came to its end; the message says at what validation."""


class Interrupted(Exception):
    """A signal (see graft.signals) stopped training after what was reached was saved; the message names the file."""

    def __init__(self, message: str, signum: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.signum = signum


def first_line(error: Any) -> str:
    """The first line of an error, which is enough inside a message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def printable(text: str) -> str:
    """Text in one line that every encoding can write: line ends and the odd bytes of a file's name as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def listed(names: Sequence[str], shown: int = 3, separator: str = ", ") -> str:
    """The first names, and how many more there are."""
    more = f"{separator}and {len(names) - shown:,} more" if len(names) > shown else ""
    return separator.join(names[:shown]) + more


def override(key: str, value: Any) -> str:
    """`key=value` as one types it: quoted for Hydra where its grammar needs that, and then for the shell."""
    text = f"{key}={hydra_value(value)}"
    if all(character.isalnum() or character in "/-_.+=,:@%" for character in text):
        return text
    if "'" not in text:
        return f"'{text}'"
    return '"' + re.sub(r'([\\"$`])', r"\\\1", text) + '"'


def hydra_value(value: Any) -> str:
    """A value in Hydra's grammar: lists in brackets, texts quoted where they have other characters than names do."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(hydra_value, value))}]"
    if value is None:
        return "null"
    text = str(value)
    plain = re.fullmatch(r"[A-Za-z/_][\w/.+-]*", text, re.ASCII) and text.lower() not in HYDRA_WORDS
    if isinstance(value, int | float) or plain:
        return text
    return in_quotes(text)


def in_quotes(text: str) -> str:
    """Text as a quoted value of Hydra's grammar, in which a backslash escapes only before a quote and at the end."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    end = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{escaped[len(escaped) - end :]}'"
