"""What a job has for keys that its own overrides leave alone and those of another sweep give, from its config."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from graft.runs.folder import CONFIG, try_read_yaml
from graft.runs.sweeps import Job


def with_defaults(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, each with a value for every key that some give; without one where its config does not tell it.

    Else sweeps that are read as one would call equal jobs different: one leaves a key alone, one gives it that value.
    """
    given: dict[str, dict[str, None]] = {}
    for job in jobs:
        for key, text in job.overrides.items():
            given.setdefault(key, {})[text] = None
    return [completed(job, given) for job in jobs]


def completed(job: Job, given: Mapping[str, Collection[str]]) -> Job:
    """A job with what its config has for the keys that it does not give; `given` are the texts that others do."""
    absent = [key for key in given if key not in job.overrides]
    config = try_read_yaml(job.path / CONFIG) if absent else None
    found = {key: text for key in absent if (text := text_of(config, key, given[key])) is not None}
    return replace(job, overrides=job.overrides | found) if found else job


def text_of(config: Any, key: str, given: Collection[str]) -> str | None:
    """A config's value as an override gives it, in the words of those given; None for an option and for no such key."""
    value, lists = config, all(text.startswith("[") for text in given)
    for name in key.split("."):
        if not isinstance(value, Mapping):
            return None
        if name not in value:
            return "[]" if lists and "." not in key else None  # a list of options that is empty is in no config
        value = value[name]
    if isinstance(value, Mapping):  # named options, or what one option stands for, which does not name it
        return f"[{','.join(value)}]" if lists else None
    return next((text for text in given if means(text, value)), written(value))


def means(text: str, value: Any) -> bool:
    """Whether an override's text gives a value, which 1e-3 and 0.001 both do."""
    try:
        return not isinstance(value, bool) and float(text) == value
    except ValueError:
        return text.strip("'\"") == written(value)


def written(value: Any) -> str:
    """A value as an override gives it."""
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    return value if isinstance(value, str) else "null" if value is None else str(value).lower()
