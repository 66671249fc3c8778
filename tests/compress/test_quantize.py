"""Rounding in training against numpy, its gradients, the ranges it learns, and what it leaves."""

import numpy as np
import torch
from torch import nn

from graft.backbones.cnn import cnn
from graft.compress.quantize import WEIGHT_LEVEL, InputRange, Quantize, RoundedWeight
from graft.inputs.base import DomainBatch


def on(part):
    part.rounds = True
    return part


def test_weights_are_rounded_by_output_channel():
    weight = torch.randn(5, 3, 2, 2, dtype=torch.float32)
    values = weight.numpy().astype(np.float64).reshape(5, -1)
    scale = np.abs(values).max(1, keepdims=True) / WEIGHT_LEVEL
    expected = (np.round(values / scale) * scale).reshape(weight.shape)
    found = on(RoundedWeight())(weight)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    torch.testing.assert_close(on(RoundedWeight())(found), found)  # so that an exported file has the same integers
    assert RoundedWeight()(weight) is weight


def test_a_channel_of_zeros_stays_zero():
    assert torch.equal(on(RoundedWeight())(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_gradients_pass_rounding_and_stop_outside_of_the_range():
    weight = torch.randn(4, 3, requires_grad=True)
    on(RoundedWeight())(weight).sum().backward()
    assert torch.equal(weight.grad, torch.ones(4, 3))
    inputs = torch.tensor([-3.0, -0.5, 0.4, 9.0], requires_grad=True)
    one = on(InputRange(0.1)).eval()
    one.low.fill_(-1.0)
    one.high.fill_(1.0)
    found = one(inputs)
    found.sum().backward()
    assert inputs.grad.tolist() == [0, 1, 1, 0]
    np.testing.assert_allclose(found.detach().numpy(), [-1, -0.5, 0.4, 1], atol=2 / 255)


def test_a_range_is_a_moving_average_that_holds_zero():
    one = InputRange(0.25).train()
    one(torch.tensor([1.0, 4.0]))
    assert (float(one.low), float(one.high)) == (0.0, 4.0)
    one(torch.tensor([-2.0, 8.0]))
    assert (float(one.low), float(one.high)) == (-0.5, 5.0)
    one(torch.tensor([float("nan"), 100.0]))
    one.eval()(torch.tensor([-50.0, 50.0]))
    assert (float(one.low), float(one.high)) == (-0.5, 5.0)


def test_layers_learn_ranges_first_and_round_from_their_epoch_on(context_of):
    backbone = cnn(size=8, dropout=0.0)
    samples = [DomainBatch(torch.randn(8, 1, 8, 8), torch.arange(8) % 3)]
    inputs = samples[0].inputs
    plain = backbone(inputs)
    compression = Quantize(start_epoch=1)
    context = context_of(backbone, samples)
    compression.prepare(context, None)
    assert sorted(compression.layers) == [
        "backbone.network.conv1.0",
        "backbone.network.conv2.0",
        "backbone.network.fc.2",
        "heads.target",
    ]
    assert float(backbone.network.conv1[0].input_range.high) == float(inputs.max())
    backbone.eval()
    assert torch.equal(backbone(inputs), plain)
    compression.begin_epoch(0)
    assert not compression.may_choose(0)
    compression.begin_epoch(1)
    rounded = backbone(inputs)
    assert not torch.equal(rounded, plain)
    torch.testing.assert_close(rounded, plain, atol=0.1, rtol=0.1)


def test_it_leaves_plain_layers_with_rounded_weights(context_of):
    backbone = cnn(size=8)
    names = {*backbone.state_dict()}
    compression = Quantize(start_epoch=3)
    compression.prepare(context_of(backbone, [DomainBatch(torch.randn(8, 1, 8, 8), torch.arange(8) % 3)]), None)
    assert compression.finish()
    assert {*backbone.state_dict()} == names
    layer = backbone.network.conv2[0]
    assert type(layer) is nn.Conv2d
    assert isinstance(layer.weight, nn.Parameter)
    levels = layer.weight.detach().flatten(1) / (
        layer.weight.detach().flatten(1).abs().amax(1, keepdim=True) / WEIGHT_LEVEL
    )
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    assert not layer._forward_pre_hooks
    assert set(compression.results()["ranges"]) == set(compression.layers)
