"""Steps over a bare loop: only those that compute the same are compared."""

import pytest

from benchmarks.rows.step import check_losses


def test_losses_that_differ_by_more_than_rounding_end_the_comparison():
    check_losses([1.0, 0.5], [1.0001, 0.5])
    with pytest.raises(AssertionError, match=r"step 1: Graft's loss is 0.500000, the bare loop's 0.510000"):
        check_losses([1.0, 0.5], [1.0, 0.51])


def test_a_bare_loop_that_stops_before_is_no_comparison():
    with pytest.raises(ValueError, match="shorter"):
        check_losses([1.0, 0.5], [1.0])
