"""A small part of `make fuzz`."""

import os

import pytest

from tests.proof.command import proved


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no alarm on this system")
@pytest.mark.parametrize(
    "arguments", [("--cases", 8, "--seed", 0), pytest.param(("--cases", 150), marks=pytest.mark.slow)]
)
def test_random_configurations_are_trained_or_refused_in_one_message(arguments):
    code, printed = proved("fuzz", *arguments)
    assert code == 0, printed
    assert "0 failed" in printed
    assert " trained" in printed
