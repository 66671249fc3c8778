import math

import pytest
import torch

from graft.training.schedules import Constant, Cosine, Inverse, OneCycle, Plateau, Step


def factors(schedule, steps):
    table = schedule.table(steps)
    assert len(table) == steps
    return [point.factor for point in table]


def test_constant_stays_at_the_full_rate():
    assert factors(Constant(), 7) == [1.0] * 7


def test_cosine_is_half_a_cosine_from_one_to_the_final_fraction():
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert factors(Cosine(warmup_fraction=0.0, final_fraction=0.1), 8) == pytest.approx(expected)


def test_warmup_rises_linearly_and_hands_over_at_the_full_rate():
    values = factors(Cosine(warmup_fraction=0.4), 10)
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert values[5:] == pytest.approx([(1 + math.cos(math.pi * step / 6)) / 2 for step in range(1, 6)])


def test_one_cycle_goes_up_then_down_and_momentum_the_other_way():
    table = OneCycle(warmup_fraction=0.5, div_factor=10.0).table(42)
    rates, momenta = [point.factor for point in table], [point.momentum for point in table]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[-1] == pytest.approx(1e-5), "the last step is taken"
    assert momenta.index(min(momenta)) == rates.index(max(rates))
    assert (momenta[0], min(momenta)) == pytest.approx((0.95, 0.85), abs=0.001)


@pytest.mark.parametrize("steps", [2, 3, 7, 10])
def test_one_cycle_ends_at_its_end_whatever_its_length(steps):
    assert factors(OneCycle(div_factor=10.0), steps)[-1] == pytest.approx(1e-5)


def test_step_falls_at_fractions_of_training():
    assert factors(Step([0.3, 0.6], factor=0.1), 10) == pytest.approx([1.0] * 3 + [0.1] * 3 + [0.01] * 4)


def test_inverse_falls_as_in_danns_paper():
    expected = [(1 + 10 * step / 8) ** -0.75 for step in range(8)]
    assert factors(Inverse(), 8) == pytest.approx(expected)
    assert factors(Inverse(gamma=4, power=1, warmup_fraction=0.2), 10)[2:] == pytest.approx(
        [1 / (1 + 4 * step / 8) for step in range(8)]
    )


@pytest.mark.parametrize("schedule", [Constant(0.5), Cosine(1.0), OneCycle(), Step(), Inverse(warmup_fraction=1.0)])
def test_one_step_is_enough(schedule):
    assert len(schedule.table(1)) == 1


def test_plateau_has_no_table_but_torchs_scheduler():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = Plateau(factor=0.5, patience_epochs=1).scheduler(optimizer, "max")
    for _ in range(4):
        scheduler.step(0.1)
    assert Plateau().table(10) is None
    assert optimizer.param_groups[0]["lr"] == 0.5
