"""Samples that a notebook holds, which no config can: a word stands there for them while `graft.train` runs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graft.errors import GraftError

KEYS = ("samples", "val_samples", "test_samples")  # last parts of the keys that may hold such
PREFIX = "python:"

_held: dict[str, Any] = {}  # by their words


@contextmanager
def held(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The values of dotted keys, with words for samples, which `given` knows inside the block."""
    found = {key: value for key, value in values.items() if key.rpartition(".")[2] in KEYS and is_held(value)}
    before = dict(_held)
    _held.update({PREFIX + key: value for key, value in found.items()})
    try:
        yield {key: PREFIX + key if key in found else value for key, value in values.items()}
    finally:
        _held.clear()
        _held.update(before)


def is_held(value: Any) -> bool:
    """Whether a value is no config's: neither a word or a number, nor a part that a config names by its `_target_`."""
    if isinstance(value, Mapping):
        return "_target_" not in value and "train" in value  # data with their splits, which a source refuses by name
    return not isinstance(value, str | Path | int | float | None)


def given(value: Any) -> Any:
    """What a word stands for, any other value as it is. Raises GraftError for a word of an earlier run."""
    if not isinstance(value, str) or not value.startswith(PREFIX):
        return value
    if value not in _held:
        key = value.removeprefix(PREFIX)
        raise GraftError(
            f"{key}={value}: these samples were given to graft.train from Python. Give them again: "
            f'graft.train(..., **{{"{key}": samples}})'
        )
    return _held[value]
