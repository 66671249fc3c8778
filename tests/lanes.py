"""Which cases of a parametrized test wait for `make test-all`."""

from typing import Any

import pytest


def slow(*cases: Any) -> list:
    """The same cases, marked slow: `parametrize("strategy", ["full", *slow("lora", "adapter")])`."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow) for case in cases]
