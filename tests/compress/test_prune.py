"""Structured pruning: which channels go, what stays whole, and that shapes alone make the network again."""

import copy
import json

import pytest
import torch
from lanes import slow
from torch import nn

from graft.backbones.cnn import cnn
from graft.backbones.contract import wrap
from graft.backbones.timm import TimmBackbone
from graft.compress.prune import Prune
from graft.compress.structure import changed_shapes, resize, shapes_of
from graft.errors import GraftError
from graft.inputs.base import DomainBatch
from graft.strategies.full import Full


class Residual(nn.Module):
    """A stem, a block with a depthwise convolution and a shortcut, and features."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv2d(16, 32, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.BatchNorm2d(32), nn.ReLU())
        self.narrow = nn.Sequential(nn.Conv2d(32, 16, 1), nn.BatchNorm2d(16))
        self.features = nn.Linear(16, 24)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.narrow(self.depthwise(self.wide(x)))
        return self.features(x.mean((2, 3)))


@pytest.fixture
def residual():
    torch.manual_seed(0)
    return wrap(Residual(), "residual", size=8, channels=3)


def test_half_of_the_channels_go_and_features_stay(residual, context_of):
    compression = Prune(ratio=0.5, round_to=1)
    compression.prepare(context_of(residual), None)
    network = residual.network
    assert network.stem[0].weight.shape == (8, 3, 3, 3)
    assert network.wide[0].weight.shape == (16, 8, 1, 1)
    assert network.depthwise[0].weight.shape == (16, 1, 3, 3)
    assert network.depthwise[0].groups == network.depthwise[0].in_channels == 16
    assert network.narrow[0].weight.shape == (8, 16, 1, 1)
    assert network.features.weight.shape == (24, 8)
    assert residual(residual.example_inputs(2)).shape == (2, 24)
    assert all(parameter.grad is None for parameter in residual.parameters())


def test_the_smallest_channels_go(context_of):
    backbone = cnn(size=8, channels=3)
    first = backbone.network.conv1[0]
    with torch.no_grad():
        first.weight.copy_(torch.arange(1.0, 33.0)[torch.randperm(32)].view(-1, 1, 1, 1).expand_as(first.weight))
        backbone.network.conv2[0].weight.fill_(1.0)
    largest = first.weight.detach()[:, 0, 0, 0].sort().values[16:]
    Prune(ratio=0.5).prepare(context_of(backbone), None)
    assert backbone.network.conv1[0].weight[:, 0, 0, 0].sort().values.tolist() == largest.tolist()


def test_taylor_keeps_the_channels_that_the_loss_depends_on(context_of):
    """A first layer whose channels all have one norm, of which the next layer reads only some."""
    torch.manual_seed(0)
    backbone = cnn(size=8, channels=3, dropout=0.0)
    read = torch.arange(32) % 4 == 0
    with torch.no_grad():
        first, second = backbone.network.conv1[0], backbone.network.conv2[0]
        first.weight.copy_(nn.functional.normalize(first.weight.flatten(1)).view_as(first.weight))
        first.bias.fill_(0.1)
        second.weight[:, ~read] = 0
        kept = first.weight.detach()[read]
    samples = [DomainBatch(torch.randn(8, 3, 8, 8), torch.arange(8) % 3) for _ in range(2)]
    Prune(ratio=0.75, importance="taylor").prepare(context_of(backbone, samples), None)
    left = backbone.network.conv1[0].weight.detach()
    assert torch.equal(left, kept)


def test_steps_take_equal_parts_at_the_beginnings_of_epochs(residual, context_of):
    compression = Prune(ratio=0.5, start_epoch=1, steps=2, round_to=1)
    compression.prepare(context_of(residual), None)
    wide = residual.network.wide[0]
    seen = []
    for epoch in range(4):
        changed = compression.begin_epoch(epoch)
        assert not compression.begin_epoch(epoch), "asked twice, as on resuming"
        seen.append((changed, wide.out_channels, compression.may_choose(epoch)))
    assert seen == [(False, 32, False), (True, 24, False), (True, 16, True), (False, 16, True)]


def test_shapes_alone_make_the_network_again(residual, context_of):
    whole = copy.deepcopy(residual)
    compression = Prune(ratio=0.4, round_to=2)
    compression.prepare(context_of(residual), None)
    shapes = json.loads(json.dumps(compression.resized()))
    assert shapes == changed_shapes(shapes_of(whole), residual)
    resize(whole, shapes)
    whole.load_state_dict(residual.state_dict())
    inputs = residual.example_inputs(2)
    assert torch.equal(whole.eval()(inputs), residual.eval()(inputs))
    assert str(whole) == str(residual)


def test_shapes_of_another_network_are_refused(residual):
    with pytest.raises(GraftError, match=r"no layer 'network\.gone'"):
        resize(residual, {"network.gone.weight": [3, 3]})


def test_a_network_whose_channels_are_too_few_is_refused(residual):
    with pytest.raises(GraftError, match="no channel of residual can go"):
        Prune(ratio=0.5, round_to=64).check(residual, Full())


def test_check_changes_nothing(residual):
    before, state = shapes_of(residual), torch.random.get_rng_state()
    Prune().check(residual, Full())
    assert shapes_of(residual) == before
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "pruned"),
    slow(
        ("vit_tiny_patch16_224", "mlp.fc"),
        ("mobilenetv3_small_050", "conv"),
        ("resnet18", "conv"),
        ("convnext_atto", "mlp.fc"),
    ),
)
def test_networks_of_timm(name, pruned, context_of):
    backbone = TimmBackbone(name, size=32, channels=3)
    Prune().check(backbone, Full())
    compression = Prune(scope="global" if name == "resnet18" else "uniform")
    compression.prepare(context_of(backbone), None)
    layers = {tensor for tensor in compression.resized() if tensor.endswith("weight")}
    assert any(pruned in layer for layer in layers)
    assert not any("attn" in layer for layer in layers)
    assert backbone(backbone.example_inputs(2)).shape == (2, backbone.feature_size)
