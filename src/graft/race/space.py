"""What a race tries: axes of overrides, and rungs of which each trains longer and keeps fewer candidates."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graft.errors import GraftError, hydra_value

FACTOR = "*"  # begins a value that multiplies the recipe's own: optimizer.lr: ["*0.2", "*1"]
RUNG_KEYS = ("name", "epochs", "seeds", "keep", "decides", "alone", "set", "also")


@dataclass(frozen=True)
class Option:
    """One value of an axis: what it is called, and the overrides that it stands for."""

    label: str
    overrides: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Candidate:
    """One combination of options, by axis."""

    options: tuple[tuple[str, Option], ...]

    @property
    def overrides(self) -> dict[str, str]:
        """Keys and values, as on a command line."""
        return {key: value for _, option in self.options for key, value in option.overrides}

    @property
    def label(self) -> str:
        """The same in words."""
        return " ".join(option.label for _, option in self.options) or "the recipe"

    def overrides_of(self, axes: Sequence[str]) -> dict[str, str]:
        """Those of some axes."""
        return {key: value for axis, option in self.options if axis in axes for key, value in option.overrides}

    def group(self, axes: Sequence[str]) -> tuple[str, ...]:
        """Its options of these axes, of all where none is named."""
        return tuple(option.label for axis, option in self.options if not axes or axis in axes)


@dataclass(frozen=True)
class Rung:
    """How long candidates train, on how many seeds, and how many go on.

    `keep` is a number, or a share below 1. Where `decides` names axes, their options are compared by the best
    candidate of each, or, where they stand `alone`, by one job of each without the options of other axes; `set` holds
    further overrides, under which candidates that become the same job share it. The best candidate that has the
    overrides `also` goes on in any case.
    """

    name: str
    epochs: float = 1.0  # share of the recipe's
    seeds: int | None = None  # the first ones of the race's; None: all
    keep: float = 1
    decides: tuple[str, ...] = ()
    alone: bool = False
    set: Mapping[str, str] = field(default_factory=dict)
    also: Mapping[str, str] = field(default_factory=dict)

    def places(self, candidates: int) -> int:
        """How many of so many go on, one at least."""
        return max(1, min(candidates, round(self.keep * candidates) if self.keep < 1 else int(self.keep)))


@dataclass(frozen=True)
class Space:
    """Options by axis, and rungs."""

    axes: Mapping[str, Sequence[Option]]
    rungs: Sequence[Rung]

    def candidates(self) -> list[Candidate]:
        """Every combination."""
        combined = itertools.product(*([(axis, one) for one in options] for axis, options in self.axes.items()))
        return [Candidate(options) for options in combined]


def read(content: Any, origin: str | Path) -> Space:
    """The space that a YAML file's content describes; GraftError names all that is wrong with it."""
    if not isinstance(content, Mapping):
        raise GraftError(f"{origin}: a race's space has the keys axes and rungs. {EXAMPLE}")
    if problems := [*problems_of(content)]:
        raise GraftError("\n".join([f"{origin}:", *(f"  - {one}" for one in problems), EXAMPLE]))
    axes = {axis: [option_of(axis, value) for value in values] for axis, values in (content.get("axes") or {}).items()}
    return Space(axes, [rung_of(one) for one in content["rungs"]])


EXAMPLE = "An example is conf/race/image.yaml; docs/race.md says what each key means."


def problems_of(content: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a space, a line each."""
    yield from (f"`{key}`: there is no such key; keys are axes and rungs" for key in {*content} - {"axes", "rungs"})
    axes, rungs = content.get("axes") or {}, content.get("rungs")
    if not isinstance(axes, Mapping):
        yield "`axes`: must name keys with a list of values each, such as optimizer.lr: [1e-3, 1e-2]"
        axes = {}
    for axis, values in axes.items():
        if not isinstance(values, list):
            yield f"`axes.{axis}={values}`: must be a list of values, empty where a command names them"
    if not isinstance(rungs, list) or not rungs or not all(isinstance(one, Mapping) for one in rungs):
        yield "`rungs`: must be a list, such as [{name: short, epochs: 0.2, keep: 3}, {name: full}]"
        return
    for number, rung in enumerate(rungs):
        place = f"rungs[{number}]"
        yield from (
            f"`{place}.{key}`: there is no such key; keys are {', '.join(RUNG_KEYS)}" for key in {*rung} - {*RUNG_KEYS}
        )
        if not isinstance(rung.get("name"), str):
            yield f"`{place}.name={rung.get('name')}`: every rung needs a name"
        if not is_number(epochs := rung.get("epochs", 1.0)) or not 0 < epochs <= 1:
            yield f"`{place}.epochs={epochs}`: must be a share of the recipe's epochs, above 0 and at most 1"
        if (seeds := rung.get("seeds")) is not None and (not is_number(seeds) or seeds != int(seeds) or seeds < 1):
            yield f"`{place}.seeds={seeds}`: must be how many of the race's seeds, 1 or more, or null for all"
        if not is_number(keep := rung.get("keep", 1)) or keep <= 0 or (keep > 1 and keep != int(keep)):
            yield f"`{place}.keep={keep}`: must be how many go on, or a share of them below 1"
        for axis in rung.get("decides") or ():
            if axis not in axes:
                yield f"`{place}.decides={axis}`: there is no such axis; axes are {', '.join(axes) or 'none'}"
        if not isinstance(alone := rung.get("alone", False), bool) or (alone and not rung.get("decides")):
            yield f"`{place}.alone={text(alone)}`: must be true or false, and true only beside `decides`"
        for key in ("set", "also"):
            if not isinstance(rung.get(key) or {}, Mapping):
                yield f"`{place}.{key}={rung[key]}`: must be keys with a value each, such as {{strategy: frozen}}"
    last = rungs[-1]
    if last.get("epochs", 1.0) != 1 or last.get("decides"):
        yield "the last rung must train as long as the recipe says (epochs: 1) and decide about whole candidates"


def is_number(value: Any) -> bool:
    """Whether it is one; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def rung_of(content: Mapping[str, Any]) -> Rung:
    """A rung of a checked space."""
    given = {key: value for key, value in content.items() if value is not None}
    for key in ("set", "also"):
        given[key] = {name: text(value) for name, value in given.get(key, {}).items()}
    return Rung(**given | {"decides": tuple(given.get("decides", ()))})


def option_of(axis: str, value: Any) -> Option:
    """One value of an axis; a mapping is several overrides that belong together, named by the first."""
    if isinstance(value, Mapping):
        overrides = tuple((key, text(one)) for key, one in value.items())
        return Option("=".join(overrides[0]), overrides)
    return Option(f"{axis}={text(value)}", ((axis, text(value)),))


def text(value: Any) -> str:
    """A YAML value as on a command line; a text stays as it is written."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return value if isinstance(value, str) else hydra_value(value)


def multiplied(options: Sequence[Option], own: Mapping[str, float]) -> list[Option]:
    """The options with values such as `*0.2` as numbers: that factor times the recipe's own value of the key."""
    found = []
    for option in options:
        if not any(value.startswith(FACTOR) for _, value in option.overrides):
            found.append(option)
            continue
        overrides = tuple((key, times(key, value, own)) for key, value in option.overrides)
        found.append(Option("=".join(overrides[0]), overrides))
    return found


def times(key: str, value: str, own: Mapping[str, float]) -> str:
    """A value such as `*0.2` as a number; GraftError where it is no factor or the recipe has no number there."""
    if not value.startswith(FACTOR):
        return value
    try:
        factor = float(value.removeprefix(FACTOR))
    except ValueError:
        raise GraftError(f"axes: `{key}={value}`: must be a number after the {FACTOR}, such as *0.2") from None
    if not is_number(own.get(key)):
        raise GraftError(
            f"axes: `{key}={value}` multiplies the recipe's own value, which is {own.get(key)}: give numbers instead"
        )
    return f"{factor * own[key]:.4g}"
