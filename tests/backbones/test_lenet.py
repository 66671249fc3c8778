import pytest
import torch

from graft.backbones.lenet import lenet
from graft.errors import GraftError

from .checks import check_features, check_freezing, check_stages


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3), (16, 1)])
def test_features_and_stages(size: int, channels: int) -> None:
    backbone = lenet(size=size, channels=channels)
    check_stages(backbone)
    check_features(backbone)
    assert backbone.feature_size == 500


def test_size_of_the_published_network() -> None:
    parameters = sum(p.numel() for p in lenet(size=28).parameters())
    assert parameters == (25 * 20 + 20) + (20 * 25 * 50 + 50) + (800 * 500 + 500)


def test_without_its_layer_the_maps_are_the_features() -> None:
    backbone = lenet(size=28, features=None)
    check_stages(backbone)
    check_features(backbone)
    check_freezing(backbone)
    assert backbone.feature_size == 800, "as in SHOT's published network"
    assert [stage.name for stage in backbone.stages] == ["conv1", "conv2"]


def test_first_weights_are_drawn_from_front_to_back() -> None:
    torch.manual_seed(0)
    drawn = [torch.nn.Conv2d(1, 20, 5), torch.nn.Conv2d(20, 50, 5), torch.nn.Linear(800, 500)]
    torch.manual_seed(0)
    parameters = lenet(size=28).parameters()
    assert all(torch.equal(next(parameters), expected) for layer in drawn for expected in layer.parameters())


def test_freezing_turns_dropout_off() -> None:
    backbone = lenet(size=16)
    check_freezing(backbone)
    for stage in backbone.stages:
        for module in backbone.stage_modules(stage.name):
            module.eval()
    x = torch.randn(2, 1, 16, 16)
    assert torch.equal(backbone(x), backbone(x))


def test_too_small_an_image() -> None:
    with pytest.raises(GraftError, match="16 pixels"):
        lenet(size=15)
