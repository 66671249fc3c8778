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


def own_and_config(
    verb: str, words: Sequence[str], keys: Collection[str], usage: str
) -> tuple[dict[str, str], list[str]]:
    """A verb's own keys, and the words that are the config's. Raises GraftError for what is no key=value."""
    settings, overrides = {}, []
    for word in words:
        key, sign, value = word.partition("=")
        if not sign:
            raise GraftError(f"graft {verb}: {word!r} is no key=value.\n{usage}")
        if key in keys:
            settings[key] = value
        else:
            overrides.append(word)
    return settings, overrides
