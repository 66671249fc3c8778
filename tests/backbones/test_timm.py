import pytest
import timm
import torch
from lanes import slow
from timm.optim import param_groups_layer_decay

from graft.backbones.timm import TimmBackbone
from graft.errors import GraftError
from graft.rates.layer_decay import LayerDecay

from .checks import check_features, check_freezing, check_stages

SMALL = {"test_vit": 48, "test_convnext": 64, "test_efficientnet": 64, "test_resnet": 64, "vit_tiny_patch16_224": 32}
STAGES = {
    "test_vit": ("patch_embed", "blocks.5", 7),
    "test_convnext": ("stem", "stages.3", 5),
    "test_efficientnet": ("conv_stem", "blocks.4", 6),
}
MORE = [  # a model of families that differ; sizes are their own
    "caformer_s18",
    "cait_xxs24_224",
    "coat_lite_tiny",
    "convit_tiny",
    "crossvit_tiny_240",
    "csatv2",
    "deit_tiny_distilled_patch16_224",
    "densenet121",
    "efficientformerv2_s0",
    "eva02_tiny_patch14_224",
    "hrnet_w18_small",
    "inception_v3",
    "mobilenetv3_small_100",
    "mobileone_s0",
    "pit_xs_224",
    "rdnet_tiny",
    "regnetv_040",
    "swin_tiny_patch4_window7_224",
    "tf_efficientnet_lite0",
    "volo_d1_224",
    "xcit_nano_12_p8_224",
]


@pytest.mark.parametrize("name", SMALL)
def test_small_models(name: str) -> None:
    backbone = TimmBackbone(name, size=SMALL[name])
    assert backbone.input_spec.size == (SMALL[name], SMALL[name])
    check_stages(backbone)
    check_features(backbone)
    if name in STAGES:
        first, last, count = STAGES[name]
        assert (backbone.stages[0].name, backbone.stages[-1].name, len(backbone.stages)) == (first, last, count)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "convnext_atto", *slow("resnet50", "densenet121", "swin_tiny_patch4_window7_224")]
)
def test_layer_decay_by_block_is_timms(name: str) -> None:
    network = timm.create_model(name, num_classes=7)
    named = {id(parameter): key for key, parameter in network.named_parameters()}
    theirs = {
        named[id(parameter)]: group["lr_scale"]
        for group in param_groups_layer_decay(network, layer_decay=0.8)
        for parameter in group["params"]
    }
    backbone = TimmBackbone(name)
    rates = LayerDecay(0.8, unit="block")
    depths = backbone.block_depths()
    own = {key.removeprefix("network."): rates.of_block(depths[key]) for key, _ in backbone.named_parameters()}
    assert own == pytest.approx({key: theirs[key] for key in own})
    assert len(set(theirs) - set(own)) == 2  # the classifier's weight and bias
    assert len(set(own.values())) > len(backbone.stages) - 1


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_more_families(name: str) -> None:
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    backbone = TimmBackbone(name)
    named = [key for stage in backbone.stages for key in backbone.stage_parameters(stage.name)]
    assert sorted(named) == sorted(key for key, _ in backbone.named_parameters())
    assert len(backbone.stages) >= 4
    check_features(backbone)


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_freezing_by_stage(name: str) -> None:
    check_freezing(TimmBackbone(name, size=64))


@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(channels: int) -> None:
    backbone = TimmBackbone("test_vit", size=48, channels=channels)
    assert backbone(torch.randn(2, channels, 48, 48)).shape == (2, backbone.feature_size)


def test_features_are_the_network_without_its_head() -> None:
    whole = timm.create_model("test_convnext").eval()
    backbone = TimmBackbone("test_convnext", size=64).eval()
    backbone.network.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("head.fc.")})
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(whole.head.fc(backbone(x)), whole(x))


@pytest.mark.parametrize(
    ("name", "closest"), [("vit_tiny_patch", "vit_tiny_patch16_224"), ("resnet50.a1_in2k", "resnet50.a1_in1k")]
)
def test_unknown_name(name: str, closest: str) -> None:
    with pytest.raises(GraftError) as error:
        TimmBackbone(name)
    assert f"backbone.name={name}" in str(error.value)
    assert closest in str(error.value)


def test_impossible_size() -> None:
    with pytest.raises(GraftError, match=r"backbone\.size=8: vit_tiny_patch16_224 cannot take"):
        TimmBackbone("vit_tiny_patch16_224", size=8)
