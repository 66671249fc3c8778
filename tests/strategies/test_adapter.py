"""Residual adapters: where they go, what moves, and that the pretrained weights keep their names."""

import copy

import pytest
import torch
from lanes import slow
from torch import nn
from torchvision.models import SwinTransformer

from graft.backbones.base import ImageBackbone, Stage
from graft.backbones.cnn import cnn
from graft.backbones.lenet import lenet
from graft.backbones.timm import TimmBackbone
from graft.backbones.torchvision import TorchvisionBackbone
from graft.errors import GraftError
from graft.strategies.adapter import Adapter, Bottleneck
from graft.weights.loading import load_weights


def small_swin(size=32, width=16):
    """torchvision's Swin, small: its blocks work on (B, H, W, C)."""
    network = SwinTransformer([2, 2], width, [2, 1], [2, 2], [4, 4])
    network.head = nn.Identity()
    return ImageBackbone("swin", network, size=size, channels=3, feature_size=32, stages=[Stage("all", ("network",))])


BUILDERS = {
    "lenet": lenet,
    "cnn": cnn,
    "resnet18": lambda: TorchvisionBackbone("resnet18", size=32),
    "mobilenet_v2": lambda: TorchvisionBackbone("mobilenet_v2", size=32),
    "vgg11": lambda: TorchvisionBackbone("vgg11", size=32),
    "efficientnet_lite0": lambda: TimmBackbone("tf_efficientnet_lite0", size=32),
    "regnetx_002": lambda: TimmBackbone("regnetx_002", size=32),
    "vit_tiny": lambda: TimmBackbone("vit_tiny_patch16_224", size=32),
    "swin": small_swin,
}
QUICK = ("lenet", "resnet18", "vit_tiny", "swin")
PLACES = {  # backbone: {module: channels}, blocks by their names in the library
    "lenet": {"conv1.2": 20, "conv2.3": 50, "fc.3": 500},
    "cnn": {"conv1.2": 32, "conv2.2": 64, "fc.3": 128},
    "resnet18": {f"layer{stage}.{block}": 32 * 2**stage for stage in (1, 2, 3, 4) for block in (0, 1)},
    "vit_tiny": {f"blocks.{n}": 192 for n in range(12)},
    "swin": {"features.1.0": 16, "features.1.1": 16, "features.3.0": 32},
    "vgg11": {"features.0": 64, "features.3": 128, "features.8": 256, "features.13": 512, "features.18": 512},
}


@pytest.mark.parametrize("name", [*QUICK, *slow(*(name for name in BUILDERS if name not in QUICK))])
def test_only_adapters_move_and_they_start_from_the_pretrained_function(name, train):
    torch.manual_seed(0)
    backbone = BUILDERS[name]().eval()
    pretrained = copy.deepcopy(backbone)
    strategy = Adapter(bottleneck=4)
    strategy.prepare(backbone)

    places = {key.removesuffix(".adapter") for key, m in backbone.network.named_modules() if isinstance(m, Bottleneck)}
    if name in PLACES:
        assert places == set(PLACES[name])
        for place, channels in PLACES[name].items():
            adapter = backbone.network.get_submodule(place).adapter
            assert (adapter.down.weight.shape[:2], len(adapter.up.bias)) == ((4, channels), channels)
    assert places
    stages = [key for stage in backbone.stages for key in backbone.stage_parameters(stage.name)]
    assert sorted(stages) == sorted(key for key, _ in backbone.named_parameters())

    x = torch.randn(2, backbone.channels, *backbone.size)
    torch.testing.assert_close(backbone(x), pretrained(x))
    assert train(strategy, backbone) == {key for key, _ in backbone.named_parameters() if ".adapter." in key}
    assert (backbone(x) - pretrained(x)).abs().max() > 0
    assert strategy.merge(backbone) is False


def test_a_bottleneck_is_the_papers_formula_on_maps_and_on_tokens():
    torch.manual_seed(0)
    maps, tokens = Bottleneck(6, 2, channels_first=True).double(), Bottleneck(6, 2, channels_first=False).double()
    nn.init.normal_(maps.up.weight)
    nn.init.normal_(maps.up.bias)
    for part in ("down", "up"):  # the same weights, as matrices
        weight, bias = getattr(maps, part).weight, getattr(maps, part).bias
        getattr(tokens, part).load_state_dict({"weight": weight.flatten(1), "bias": bias})
    y = torch.randn(3, 6, 4, 5, dtype=torch.float64)
    last = y.permute(0, 2, 3, 1)
    hidden = last @ maps.down.weight.flatten(1).T + maps.down.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    expected = last + hidden @ maps.up.weight.flatten(1).T + maps.up.bias
    torch.testing.assert_close(tokens(last), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(maps(y), expected.permute(0, 3, 1, 2), rtol=1e-12, atol=1e-12)


def test_maps_with_as_many_channels_as_pixels_a_side_are_told_apart():
    backbone = small_swin(size=64, width=32)  # (B, 32, 32, 32) after the first blocks
    Adapter().prepare(backbone)
    assert isinstance(backbone.network.features[1][0].adapter.down, nn.Linear)
    backbone = TorchvisionBackbone("resnet18", size=256)  # (B, 64, 64, 64)
    Adapter().prepare(backbone)
    assert isinstance(backbone.network.layer1[0].adapter.down, nn.Conv2d)


def test_copies_have_adapters_of_their_own():
    backbone = lenet().eval()
    Adapter().prepare(backbone)
    copied = copy.deepcopy(backbone)
    nn.init.ones_(copied.network.conv1[2].adapter.up.weight)
    x = torch.randn(1, 1, 28, 28)
    assert not torch.equal(copied(x), backbone(x))


def test_a_checkpoint_still_loads_as_plain_weights(tmp_path, train):
    torch.manual_seed(0)
    backbone = lenet()
    pretrained = copy.deepcopy(backbone)
    strategy = Adapter()
    strategy.prepare(backbone)
    train(strategy, backbone)
    torch.save({"backbone": backbone.state_dict()}, tmp_path / "weights.pt")
    plain = lenet()
    report = load_weights(plain, str(tmp_path / "weights.pt"))
    assert (report.matched, report.missing) == (report.total, [])
    assert len(report.unexpected) == 3 * 4
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in pretrained.state_dict().items())


def test_a_network_that_gives_no_tensors_inside_is_refused():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return nn.functional.conv2d(x, self.layer.weight).mean((2, 3))

    backbone = ImageBackbone(
        "pair", Pair(), size=8, channels=3, feature_size=4, stages=[Stage("all", ("network.layer",))]
    )
    with pytest.raises(GraftError, match="pair has no blocks or stages that an adapter can follow"):
        Adapter().prepare(backbone)


def test_the_note_says_where_they_are():
    backbone = TorchvisionBackbone("resnet18", size=32)
    strategy = Adapter(bottleneck=8)
    strategy.prepare(backbone)
    assert strategy.note == "adapters 8 channels wide follow layer*.* (8)"
