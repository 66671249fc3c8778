import math

import pytest
import torch

from graft.errors import GraftError
from graft.objectives.additive import AdditiveRetraining, AdditiveTransfer
from graft.objectives.alpha import AlphaWeighted

LOSSES = {"source": torch.tensor(3.0), "target": torch.tensor(5.0)}


def test_alpha_weighs_the_source_and_the_rest_the_target():
    assert AlphaWeighted(alpha=0.3)(LOSSES, progress=0.5).item() == pytest.approx(0.3 * 3 + 0.7 * 5)


@pytest.mark.parametrize(("alpha", "domains"), [(0.0, ("target",)), (1.0, ("source",)), (0.5, ("source", "target"))])
def test_a_side_without_weight_is_not_a_domain_of_the_objective(alpha, domains):
    assert AlphaWeighted(alpha).domains() == domains


def test_a_scheduled_alpha_uses_both_sides_though_it_ends_at_zero():
    assert AlphaWeighted(1.0, 0.0).domains() == ("source", "target")


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ("linear", {0.0: 0.8, 0.25: 0.65, 1.0: 0.2}),
        ("cosine", {0.0: 0.8, 0.25: 0.8 - 0.6 * (1 - math.cos(math.pi / 4)) / 2, 1.0: 0.2}),
        ("step", {0.0: 0.8, 0.39: 0.8, 0.4: 0.2, 1.0: 0.2}),
    ],
)
def test_alpha_is_scheduled_over_training(schedule, values):
    objective = AlphaWeighted(0.8, 0.2, schedule, step_at=0.4)
    assert {p: objective.alpha(p) for p in values} == pytest.approx(values)


@pytest.mark.parametrize("keywords", [{"alpha": 1.2}, {"alpha": -0.1}, {"alpha": 0.5, "alpha_end": 2.0}])
def test_an_alpha_out_of_range_is_refused_with_its_key_and_value(keywords):
    key, value = list(keywords.items())[-1]
    with pytest.raises(GraftError, match=rf"objective\.{key}={value}.*\[0, 1\]"):
        AlphaWeighted(**keywords)


def test_an_unknown_schedule_is_refused_with_the_known_ones():
    with pytest.raises(GraftError, match="linear, cosine, step"):
        AlphaWeighted(0.1, 0.2, schedule="exponential")


def test_additive_forms():
    assert AdditiveTransfer(weight=0.5)(LOSSES, 0.0).item() == pytest.approx(3 + 0.5 * 5)
    assert AdditiveRetraining(weight=0.5)(LOSSES, 0.0).item() == pytest.approx(5 + 0.5 * 3)
    assert AdditiveRetraining().fixed_heads == ("source",)
