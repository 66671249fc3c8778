"""Which cases of a parametrized test wait for `make test-all`."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow(*cases: Any) -> list:
    """The same cases, marked slow: `parametrize("strategy", ["full", *slow("lora", "adapter")])`."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow) for case in cases]


def every_second(cases: Iterable[Any]) -> list:
    """All cases, every other one marked slow: of many of one kind CI runs half."""
    return one_in(2, cases)


def one_in(step: int, cases: Iterable[Any]) -> list:
    """All cases, of which `step - 1` in `step` are marked slow."""
    return [case if number % step == 0 else slow(case)[0] for number, case in enumerate(cases)]


def first(names: Iterable[str], cases: Iterable[str]) -> list:
    """All cases, marked slow where they are not among the names."""
    return [case if case in names else slow(case)[0] for case in cases]
