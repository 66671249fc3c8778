"""What a config key may hold: names for annotations at constructors, and the rule that such an annotation states.

`graft.config.facts` reads annotations from source files, so a constructor may use whatever is defined here, in its own
module, or comes from `typing` and `annotated_types`.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NoReturn

from annotated_types import Ge, Gt, Interval

Auto = Literal["auto"]  # the run finds the value
Count = Annotated[int, Ge(1)]
Natural = Annotated[int, Ge(0)]
Seed = Annotated[int, Interval(ge=0, lt=2**32)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
FractionBelowOne = Annotated[float, Interval(ge=0, lt=1)]
Given = NoReturn  # the run gives the argument, no config key may


class Part:
    """What a mapping with `_target_` builds, without further constraints."""


Arguments = dict[str, Any]  # the arguments of the `_target_` beside it that are no keys beside it

Names = Mapping[type, str]  # how messages call a type

SINGULAR: Names = {
    int: "an integer",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
    object: "anything",
}
PLURAL: Names = {
    int: "integers",
    float: "numbers",
    str: "texts",
    bool: "true or false",
    list: "lists",
    dict: "mappings",
}
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


@dataclass(frozen=True)
class Kind:
    """One type of a value, with what bounds a number, or what a list or a mapping holds."""

    type: type
    bounds: tuple[tuple[str, float], ...] = ()  # (name in SIGNS, bound)
    items: "Rule | None" = None  # of a list, or the values of a mapping whose keys are free; None: anything
    least: int = 0  # items of a list
    fields: Any = None  # of a mapping whose keys are known: name -> graft.config.facts.Field
    target: bool = False  # a mapping with `_target_`

    def accepts(self, value: Any) -> bool:
        """Whether a value is of this kind; what is inside of a mapping is not looked at."""
        if not is_a(value, self.type) or (self.target and "_target_" not in value):
            return False
        if isinstance(value, list):
            return len(value) >= self.least and (self.items is None or all(map(self.items.accepts, value)))
        return all(within(value, name, bound) for name, bound in self.bounds)

    def words(self, names: Names = SINGULAR) -> str:
        """The kind as text."""
        text = " ".join([names[self.type], " and ".join(f"{SIGNS[name]} {bound:,}" for name, bound in self.bounds)])
        if self.type is list and self.items:
            text += f"of {self.items.words(PLURAL)}"
        if self.target:
            text += "with _target_"
        return text.strip() + (f" (at least {self.least})" if self.least else "")


@dataclass(frozen=True)
class Rule:
    """What a value may be: null, one of some words, or of some kinds."""

    null: bool = False
    choices: tuple[Any, ...] = ()
    kinds: tuple[Kind, ...] = ()

    def __or__(self, other: "Rule") -> "Rule":
        """Either."""
        return Rule(
            null=self.null or other.null,
            choices=(*self.choices, *(choice for choice in other.choices if choice not in self.choices)),
            kinds=(*self.kinds, *(kind for kind in other.kinds if kind not in self.kinds)),
        )

    def bounded(self, **changes: Any) -> "Rule":
        """The same with further constraints on every kind."""
        return replace(self, kinds=tuple(replace(kind, **changes) for kind in self.kinds))

    def accepts(self, value: Any) -> bool:
        """Whether a value fits; what is inside of a mapping is not looked at."""
        if value is None:
            return self.null or any(kind.type is object for kind in self.kinds)
        return any(type(value) is type(word) and value == word for word in self.choices) or any(
            kind.accepts(value) for kind in self.kinds
        )

    def words(self, names: Names = SINGULAR) -> str:
        """The rule as text."""
        return " or ".join(
            ["null"] * self.null + [word_of(choice) for choice in self.choices] + [k.words(names) for k in self.kinds]
        )

    def closest(self, value: Any) -> str:
        """` (did you mean ...?)` with the word spelt most like a value, or like one of a list; else empty."""
        words = [choice for choice in self.all_choices() if isinstance(choice, str)]
        for one in value if isinstance(value, list) else [value]:
            if one not in words and (close := difflib.get_close_matches(str(one), words, n=1)):
                return f" (did you mean {close[0]}?)"
        return ""

    def all_choices(self) -> Iterator[Any]:
        """The words, those of lists too."""
        yield from self.choices
        for kind in self.kinds:
            if kind.items:
                yield from kind.items.all_choices()


def word_of(value: Any) -> str:
    """A scalar as one would type it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def is_a(value: Any, kind: type) -> bool:
    """Whether a config value is of a type; an integer is a number too, true and false are not."""
    if isinstance(value, bool):
        return kind in (bool, object)
    return isinstance(value, int | float if kind is float else kind)


def within(value: float, name: str, bound: float) -> bool:
    """Whether a number keeps to a bound; not a number keeps to none."""
    return {"ge": value >= bound, "gt": value > bound, "le": value <= bound, "lt": value < bound}[name]
