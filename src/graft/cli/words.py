"""Words that the verbs take on their command lines."""

from collections.abc import Collection, Iterator, Sequence

from graft.errors import GraftError


def names_in(value: str) -> list[str]:
    """The names of `[one,two]`."""
    return [name.strip().strip("'\"") for name in value.strip("[]").split(",") if name.strip()]


def pairs(verb: str, words: Sequence[str], keys: Collection[str], usage: str) -> Iterator[tuple[str, str]]:
    """Key and value of each word. Raises GraftError for what is none of a verb's `keys`, or has no value."""
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or key not in keys:
            raise GraftError(f"graft {verb}: {word!r} is none of its keys: {', '.join(keys)}.\n{usage}")
        yield key, value
