import pytest
import torch
from lanes import slow
from torch import nn
from torchvision import models

from graft.backbones.torchvision import TorchvisionBackbone
from graft.errors import GraftError

from .checks import check_features, check_freezing, check_stages

FAMILIES = {  # a model of every family, at a size that keeps the test fast
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "googlenet": 64,
    "inception_v3": 75,
    "maxvit_t": 224,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_x_400mf": 32,
    "resnet18": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 32,
    "swin_t": 32,
    "vgg11": 32,
    "vit_b_32": 64,
}
QUICK = ("mobilenet_v2", "resnet18", "convnext_tiny")
STAGES = {  # first stage's and last stage's name, number of stages
    "resnet18": ("conv1", "layer4", 5),
    "vgg11": ("features.0", "features.16", 5),
    "mobilenet_v2": ("features.0", "features.14", 5),
    "convnext_tiny": ("features.0", "features.6.1", 4),
    "vit_b_32": ("conv_proj", "encoder.layers.encoder_layer_11", 13),
}


@pytest.mark.parametrize("name", [*QUICK, *slow(*(name for name in FAMILIES if name not in QUICK))])
def test_every_family(name: str) -> None:
    backbone = TorchvisionBackbone(name, size=FAMILIES[name])
    check_stages(backbone)
    check_features(backbone)
    if name in STAGES:
        first, last, count = STAGES[name]
        assert (backbone.stages[0].name, backbone.stages[-1].name, len(backbone.stages)) == (first, last, count)


def test_no_family_is_left_out() -> None:
    def family(name: str) -> str:
        return models.get_model_builder(name).__module__

    assert {family(name) for name in models.list_models(module=models)} == {family(name) for name in FAMILIES}


@pytest.mark.parametrize(("name", "size"), [("resnet18", 32), ("mobilenet_v2", 32)])
def test_freezing_by_stage(name: str, size: int) -> None:
    check_freezing(TorchvisionBackbone(name, size=size))


def test_token_and_positions_are_in_the_first_stage() -> None:
    backbone = TorchvisionBackbone("vit_b_32", size=32)
    first = backbone.stage_parameters("conv_proj")
    assert {"network.class_token", "network.encoder.pos_embedding", "network.conv_proj.weight"} <= first.keys()


def test_stages_do_not_depend_on_the_image_size() -> None:
    assert TorchvisionBackbone("resnet18", size=16).stages == TorchvisionBackbone("resnet18").stages


def test_head_is_replaced_by_global_average_pooling() -> None:
    backbone = TorchvisionBackbone("mobilenet_v3_small", size=64).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x), backbone.network.features(x).mean((2, 3)))
    assert backbone.feature_size == 576


def test_squeezenet_is_pooled_too() -> None:
    backbone = TorchvisionBackbone("squeezenet1_1", size=64).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x), backbone.network.features(x).mean((2, 3)))


@pytest.mark.slow
def test_vgg16_has_512_features() -> None:
    backbone = TorchvisionBackbone("vgg16", size=32).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x), backbone.network.features(x).mean((2, 3)))
    assert backbone.feature_size == 512
    assert sum(p.numel() for p in backbone.parameters()) == 14_714_688  # the convolutions of VGG16


def test_resnet_features_equal_the_whole_networks() -> None:
    torch.manual_seed(1)
    whole = models.resnet18().eval()
    backbone = TorchvisionBackbone("resnet18", size=32).eval()
    backbone.network.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("fc.")})
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(whole.fc(backbone(x)), whole(x))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_numbers_of_channels(channels: int) -> None:
    backbone = TorchvisionBackbone("resnet18", size=32, channels=channels)
    assert backbone.input_spec.channels == channels
    assert len(backbone.input_spec.mean) == len(backbone.input_spec.std) == channels
    assert backbone(torch.randn(2, channels, 32, 32)).shape == (2, 512)


def test_new_input_convolution_keeps_the_spread_of_its_output() -> None:
    x = torch.randn(8, 3, 64, 64)
    rgb = TorchvisionBackbone("resnet18", size=64).network.conv1(x).std().item()
    grey = TorchvisionBackbone("resnet18", size=64, channels=1).network.conv1(x[:, :1]).std().item()
    assert grey == pytest.approx(rgb, rel=0.2)


def test_no_dropout_beside_the_stages() -> None:
    backbone = TorchvisionBackbone("googlenet", size=64)
    assert not any(isinstance(module, nn.Dropout) for module in backbone.modules())


def test_own_size_and_normalisation() -> None:
    spec = TorchvisionBackbone("inception_v3").input_spec
    assert spec.size == (299, 299)
    assert spec.mean == spec.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("name", ["resnet19", "fasterrcnn_resnet50_fpn"])
def test_unknown_name(name: str) -> None:
    with pytest.raises(GraftError, match=r"resnet50|resnet18") as error:
        TorchvisionBackbone(name)
    assert f"backbone.name={name}" in str(error.value)


@pytest.mark.parametrize(("name", "size"), [("alexnet", 16), ("vit_b_32", 50), ("inception_v3", 32)])
def test_impossible_size(name: str, size: int) -> None:
    with pytest.raises(GraftError, match=f"backbone.size={size}: {name} cannot take"):
        TorchvisionBackbone(name, size=size)
