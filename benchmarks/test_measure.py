"""What is said of values, and who has a turn when."""

import pytest

from benchmarks.measure import growth_exponent, interleave, median_interval, ratios, summarise


def test_works_take_turns_and_every_other_round_goes_backwards():
    order = []
    works = {name: lambda name=name: order.append(name) or float(len(order)) for name in "abc"}
    assert interleave(works, 3) == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}
    assert "".join(order) == "abccbaabc"


def test_ratios_are_taken_round_by_round():
    assert ratios([2.0, 6.0], [1.0, 2.0]) == [2.0, 3.0]
    with pytest.raises(ValueError, match="argument 2 is longer"):
        ratios([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("count", "interval"), [(5, None), (6, (1, 6)), (8, (1, 8)), (9, (2, 8)), (10, (2, 9)), (20, (6, 15))]
)
def test_the_interval_of_the_median_is_that_of_the_binomial_tables(count, interval):
    values = [float(value) for value in range(count, 0, -1)]
    assert median_interval(values) == interval


def test_a_summary_of_a_single_value_has_no_interval():
    summary = summarise([2.0])
    assert (summary.median, summary.minimum, summary.maximum, summary.count) == (2.0, 2.0, 2.0, 1)
    assert summary.interval is None


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_is_found(power):
    assert growth_exponent([1, 4, 16], [3 * size**power for size in (1, 4, 16)]) == pytest.approx(power)
