"""Config values as text, and the keys that are spelt alike."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def leaves(config: Mapping[str, Any], prefix: str = "", mappings: bool = False) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every value that is not a mapping, or of the mappings too."""
    for name, value in config.items():
        key = f"{prefix}{name}"
        if not isinstance(value, Mapping):
            yield key, value
            continue
        if mappings or not value:
            yield key, value
        yield from leaves(value, f"{key}.", mappings)


def shown(value: Any) -> str:
    """A value as one would type it."""
    if isinstance(value, Mapping):
        return "{...}" if value else "{}"
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def suggestion(key: str, names: Iterable[str]) -> str:
    """` (did you mean ...?)` with the key spelt alike, else those of the same last name; empty where there is none."""
    names = sorted(set(names))
    last = key.split(".")[-1]
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.75)
    close = close or [name for name in names if name.split(".")[-1] == last]
    if not close and key == last:
        by_last = {name.split(".")[-1]: name for name in reversed(names)}
        close = [by_last[match] for match in difflib.get_close_matches(last, by_last, n=1, cutoff=0.75)]
    return f" (did you mean {' or '.join(f'`{name}`' for name in close[:3])}?)" if close else ""
