"""WiSE-FT: the ends of the line are the pretrained and the tuned network, and validation chooses between them."""

import pytest
import torch
from test_module import batch_of, build_module
from torch import nn

from graft.strategies.full import Full
from graft.weights import wise_ft
from graft.weights.averaging import network

HEADS = ["shared"]


def tune(module):
    """Other weights, statistics and counters, as after some training."""
    torch.manual_seed(7)
    with torch.no_grad():
        for value in network(module).state_dict().values():
            value.add_(1 if not value.is_floating_point() else torch.rand_like(value))
    return module


def outputs(module):
    return module.eval()(batch_of(["target"])["target"].inputs)


def test_the_ends_give_the_outputs_of_the_pretrained_and_of_the_tuned_network(tiny_backbone):
    module = build_module(tiny_backbone())
    pretrained, start = outputs(module), wise_ft.starting_weights(module, HEADS)
    tuned = outputs(tune(module))
    assert not torch.equal(pretrained, tuned)
    for alpha, expected in ((0.0, pretrained), (1.0, tuned)):
        wise_ft.choose(module, start, [alpha], lambda: {"acc": 1.0}, "acc", higher_is_better=True)
        assert torch.equal(outputs(module), expected)
        network(module).load_state_dict(tune(build_module(tiny_backbone())).state_dict(), strict=False)


def test_between_the_ends_weights_and_statistics_are_on_the_line_and_counters_are_the_tuned_ones(tiny_backbone):
    module = build_module(tiny_backbone()).double()
    start = wise_ft.starting_weights(module, HEADS)
    end = {name: value.clone() for name, value in network(tune(module)).state_dict().items()}
    for name, value in wise_ft.interpolate(start, end, 0.3).items():
        expected = 0.7 * start[name] + 0.3 * end[name] if value.is_floating_point() else end[name]
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_a_head_that_was_not_pretrained_stays_tuned(tiny_backbone):
    module = build_module(tiny_backbone(), heads=("source", "target"))
    start = wise_ft.starting_weights(module, ["source"])
    before = {name: value.clone() for name, value in network(module).state_dict().items()}
    tuned = {name: value.clone() for name, value in network(tune(module)).state_dict().items()}
    wise_ft.choose(module, start, [0.0], lambda: {"acc": 1.0}, "acc", higher_is_better=True)
    for name, value in network(module).state_dict().items():
        expected = tuned if name.startswith("heads.target") or "num_batches" in name else before
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    ("values", "higher_is_better", "best"),
    [
        ({0.0: 0.5, 0.5: 0.9, 1.0: 0.8}, True, 0.5),
        ({0.0: 0.5, 0.5: 0.9, 1.0: 0.8}, False, 0.0),
        ({0.0: 0.9, 0.5: 0.9, 1.0: 0.8}, True, 0.5),  # of equally good ones the nearest to the tuned weights
        ({1.0: float("nan"), 0.5: 0.1}, True, 0.5),
    ],
)
def test_the_best_on_validation_is_left_in_the_module(tiny_backbone, values, higher_is_better, best):
    module = build_module(tiny_backbone())
    start = wise_ft.starting_weights(module, HEADS)
    end = {name: value.clone() for name, value in network(tune(module)).state_dict().items()}
    todo = sorted(values)

    def evaluate():
        alpha = todo.pop(0)
        expected = wise_ft.interpolate(start, end, alpha)
        assert all(torch.equal(value, expected[name]) for name, value in network(module).state_dict().items())
        return {"acc": values[alpha], "loss": alpha}

    tried, chosen, metrics = wise_ft.choose(module, start, list(values), evaluate, "acc", higher_is_better)
    assert chosen == metrics["loss"] == best
    assert list(tried) == sorted(values)
    expected = wise_ft.interpolate(start, end, best)
    assert all(torch.equal(value, expected[name]) for name, value in network(module).state_dict().items())


class Wrapped(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base = base
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.base(x) + self.shift


class Adds(Full):
    """Wraps a layer and takes it out of the wrapping again, as the strategies of peft do."""

    def prepare(self, backbone):
        backbone.network.pool = Wrapped(backbone.network.pool)

    def merge(self, backbone):
        backbone.network.pool = backbone.network.pool.base
        return True


def test_what_a_strategy_adds_is_folded_in_at_both_ends(tiny_backbone):
    strategy, backbone = Adds(), tiny_backbone()
    strategy.prepare(backbone)
    module = build_module(backbone, strategy=strategy)
    pretrained, start = outputs(module), wise_ft.starting_weights(module, HEADS)
    assert isinstance(module.backbone.network.pool, Wrapped)  # as it trains
    tune(module)
    strategy.merge(module.backbone)
    wise_ft.choose(module, start, [0.0], lambda: {"acc": 1.0}, "acc", higher_is_better=True)
    assert torch.equal(outputs(module), pretrained)
