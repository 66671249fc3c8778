"""Which cases of a parametrized test wait for `make test-all`."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow(*cases: Any) -> list:
    """The same cases, marked slow: `parametrize("strategy", ["full", *slow("lora", "adapter")])`."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow) for case in cases]


def every_second(cases: Iterable[Any]) -> list:
    """All cases, every other one marked slow: of many of one kind CI runs half."""
    return [case if number % 2 == 0 else slow(case)[0] for number, case in enumerate(cases)]
