"""LoRA, (IA)^3 and other tuners of peft: what they adapt, what moves, and that merging is what the papers say."""

import copy
import functools
import re
import sys

import pytest
import torch
from lanes import slow
from torch import nn
from torchvision.models import ConvNeXt, SwinTransformer, VisionTransformer
from torchvision.models.convnext import CNBlockConfig

from graft.backbones.base import ImageBackbone, Stage
from graft.backbones.lenet import lenet
from graft.backbones.timm import TimmBackbone
from graft.backbones.torchvision import TorchvisionBackbone
from graft.errors import GraftError
from graft.strategies.ia3 import IA3
from graft.strategies.lora import LoRA
from graft.strategies.peft import PeftStrategy
from graft.training.optim import parameter_groups


def small(network, head, features):
    """A network of torchvision in another size than torchvision has."""
    setattr(network, head, nn.Flatten())
    stages = [Stage("all", ("network",))]
    return ImageBackbone("small", network, size=32, channels=3, feature_size=features, stages=stages)


def small_vit():
    network = VisionTransformer(image_size=32, patch_size=16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64)
    return small(network, "heads", 32)


def small_swin():
    return small(SwinTransformer([2, 2], 16, [2, 1], [2, 2], [4, 4]), "head", 32)


def small_convnext():
    return small(ConvNeXt([CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 1)]), "classifier", 32)


BUILDERS = {
    "lenet": lenet,
    "resnet18": lambda: TorchvisionBackbone("resnet18", size=32),
    "mobilenet_v2": lambda: TorchvisionBackbone("mobilenet_v2", size=32),
    "efficientnet_lite0": lambda: TimmBackbone("tf_efficientnet_lite0", size=32),
    "vit_tiny": lambda: TimmBackbone("vit_tiny_patch16_224", size=32),
    "torchvision_vit": small_vit,
    "torchvision_swin": small_swin,
    "torchvision_convnext": small_convnext,
}
QUICK = ("lenet", "vit_tiny")
ATTENTION = r"blocks\.\d+\.attn\.(qkv|proj)"
MLP = r"encoder\.layers\.encoder_layer_\d\.mlp\.[03]"
SWIN = r"features\.\d\.\d\.mlp\.[03]|features\.\d\.reduction"
ADAPTED = {  # backbone: (what LoRA adapts, what (IA)^3 adapts)
    "lenet": (r"conv1\.0|conv2\.0|fc\.1",) * 2,
    "resnet18": (r"conv1|layer\d\.\d\.conv[12]|layer\d\.\d\.downsample\.0",) * 2,
    "mobilenet_v2": (
        r"features\.(0|18)\.0|features\.1\.conv\.1|features\.\d+\.conv\.(0\.0|2)(?<!features\.1\.conv\.0\.0)"
        r"(?<!features\.1\.conv\.2)",
        r"features\.(0|18)\.0|features\.1\.conv\.1|features\.\d+\.conv\.(0\.0|1\.0|2)(?<!features\.1\.conv\.2)",
    ),
    "efficientnet_lite0": (r"conv_stem|conv_head|.*conv_pwl?", r"conv_stem|conv_head|.*conv_pwl?|.*conv_dw"),
    "vit_tiny": (ATTENTION, ATTENTION + r"|blocks\.\d+\.mlp\.fc2"),
    "torchvision_vit": (MLP,) * 2,
    "torchvision_swin": (SWIN,) * 2,
    "torchvision_convnext": (
        r"features\.[02]\.[01]|features\.\d\.\d\.block\.[35]",
        r"features\.[02]\.[01]|features\.\d\.\d\.block\.[035]",
    ),
}
STRATEGIES = {"lora": lambda: LoRA(r=4, alpha=8), "ia3": IA3}


@functools.cache
def original(name):
    """BatchNorm gets statistics as in a trained network, so that features neither vanish nor explode."""
    torch.manual_seed(0)
    backbone = BUILDERS[name]()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        backbone.train()(torch.randn(16, backbone.channels, *backbone.size))
    return backbone.eval()


def build(name, dtype=torch.float32):
    torch.manual_seed(0)
    return copy.deepcopy(original(name)).to(dtype)


def images(backbone):
    return torch.randn(2, backbone.channels, *backbone.size).to(backbone.input_mean)


@pytest.mark.parametrize("tuner", STRATEGIES)
@pytest.mark.parametrize("name", [*QUICK, *slow(*(name for name in BUILDERS if name not in QUICK))])
def test_what_was_added_trains_from_the_pretrained_function_and_merges_into_plain_weights(name, tuner, train):
    backbone = build(name, torch.float64)
    pretrained = build(name, torch.float64)
    x = images(backbone)
    strategy = STRATEGIES[tuner]()
    strategy.prepare(backbone)

    expected = re.compile(ADAPTED[name][list(STRATEGIES).index(tuner)])
    layers = [key for key, m in pretrained.network.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    assert strategy.targets == [layer for layer in layers if expected.fullmatch(layer)]
    torch.testing.assert_close(backbone(x), pretrained(x), rtol=1e-12, atol=1e-12)
    kind = {"lora": ".lora_", "ia3": ".ia3_"}[tuner]
    added = {key for key, _ in backbone.named_parameters() if kind in key}
    stages = [key for stage in backbone.stages for key in backbone.stage_parameters(stage.name)]
    assert sorted(stages) == sorted(key for key, _ in backbone.named_parameters())

    assert train(strategy, backbone) == added
    assert len(added) == len(strategy.targets) * (2 if tuner == "lora" else 1)
    tuned = backbone(x)
    assert (tuned - pretrained(x)).abs().max() > 1e-3
    unmerged = copy.deepcopy(backbone)
    assert strategy.merge(backbone) is True
    assert list(backbone.state_dict()) == list(pretrained.state_dict())
    plain = build(name, torch.float64)
    plain.load_state_dict(backbone.state_dict())
    torch.testing.assert_close(plain(x), tuned, rtol=1e-9, atol=1e-9)
    formula = {"lora": lora_weight, "ia3": ia3_weight}[tuner]
    for target in strategy.targets:
        layer, old = unmerged.network.get_submodule(target), pretrained.network.get_submodule(target)
        weight, bias = formula(layer, old)
        merged = backbone.network.get_submodule(target)
        torch.testing.assert_close(merged.weight, weight, rtol=1e-12, atol=1e-12)
        assert bias is None if merged.bias is None else torch.allclose(merged.bias, bias, rtol=1e-12)


def lora_weight(layer, old):
    """W + alpha / r * B A; a convolution's B is 1x1, so that the kernels of A are summed with the weights of B."""
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    update = torch.einsum("or,r...->o...", b.flatten(1), a)
    return old.weight + 8 / 4 * update, old.bias


def ia3_weight(layer, old):
    """Rows of W and the bias times l; for the second layer of an MLP, columns of W."""
    scale = layer.ia3_l["default"].flatten()
    if old.weight.ndim == 2 and layer.is_feedforward:
        return old.weight * scale, old.bias
    return old.weight * scale.view(-1, *[1] * (old.weight.ndim - 1)), None if old.bias is None else old.bias * scale


def test_ia3_scales_the_inputs_of_second_mlp_layers_only():
    backbone = build("vit_tiny")
    strategy = IA3()
    strategy.prepare(backbone)
    second = [name for name in strategy.targets if backbone.network.get_submodule(name).is_feedforward]
    assert second == [f"blocks.{n}.mlp.fc2" for n in range(12)]
    assert backbone.network.blocks[0].mlp.fc2.ia3_l["default"].numel() == 4 * 192


@pytest.mark.parametrize("name", ["lenet", "vit_tiny"])
def test_dora_learns_magnitudes_apart_from_directions(name, train):
    backbone = build(name, torch.float64)
    pretrained = build(name, torch.float64)
    strategy = LoRA(r=4, alpha=8, dora=True)
    strategy.prepare(backbone)
    torch.testing.assert_close(backbone(x := images(backbone)), pretrained(x))
    assert train(strategy, backbone) == {name for name, _ in backbone.named_parameters() if ".lora_" in name}
    unmerged = copy.deepcopy(backbone)
    strategy.merge(backbone)
    torch.testing.assert_close(backbone(x), unmerged(x))
    for target in strategy.targets:
        layer = unmerged.network.get_submodule(target)
        direction, _ = lora_weight(layer, pretrained.network.get_submodule(target))
        magnitude = layer.lora_magnitude_vector["default"].weight.view(-1, *[1] * (direction.ndim - 1))
        norm = direction.flatten(1).norm(dim=1).view_as(magnitude)
        torch.testing.assert_close(backbone.network.get_submodule(target).weight, magnitude * direction / norm)


@pytest.mark.parametrize(
    ("tuner", "options", "name"),
    [
        *slow(("loha", {"r": 4, "alpha": 4}, "resnet18"), ("lokr", {"r": 4, "alpha": 4}, "efficientnet_lite0")),
        ("hira", {"r": 4}, "lenet"),
        ("oft", {"oft_block_size": 16}, "vit_tiny"),
        ("vera", {"r": 16}, "vit_tiny"),
        ("fourierft", {"n_frequency": 50, "init_weights": True}, "vit_tiny"),
        ("lora", {"r": 4, "init_lora_weights": "pissa"}, "vit_tiny"),
    ],
)
def test_other_tuners_train_what_they_add_and_merge(tuner, options, name, train):
    backbone, pretrained = build(name), build(name)
    x = images(backbone)
    strategy = PeftStrategy(tuner, options)
    strategy.prepare(backbone)
    torch.testing.assert_close(backbone(x), pretrained(x), rtol=1e-3, atol=1e-4)
    assert train(strategy, backbone) == strategy.added
    assert all("base_layer" not in name for name in strategy.added)
    tuned = backbone(x)
    assert (tuned - pretrained(x)).abs().max() > 1e-3
    assert strategy.merge(backbone) is True
    assert list(backbone.state_dict()) == list(pretrained.state_dict())
    torch.testing.assert_close(backbone(x), tuned, rtol=1e-3, atol=1e-4)


def test_a_checkpoint_holds_tensors_only_and_loads_into_a_newly_prepared_backbone(tmp_path, train):
    first, second = build("lenet"), build("lenet")
    strategy = LoRA(r=2, dropout=0.5)
    strategy.prepare(first)
    train(strategy, first)
    torch.save(first.state_dict(), tmp_path / "weights.pt")
    strategy.prepare(second)
    second.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(first(x := images(first)), second.eval()(x))


def test_initial_values_come_from_the_global_generator_and_choosing_layers_draws_nothing():
    backbones = [build("lenet") for _ in range(3)]
    state = torch.get_rng_state()
    LoRA().choose(backbones[0])
    assert torch.equal(torch.get_rng_state(), state)
    for seed, backbone in zip((1, 1, 2), backbones, strict=True):
        torch.manual_seed(seed)
        LoRA().prepare(backbone)
    a = [backbone.network.fc[1].lora_A["default"].weight for backbone in backbones]
    assert torch.equal(a[0], a[1])
    assert not torch.equal(a[0], a[2])


# Which layers


@pytest.mark.parametrize(
    ("wanted", "adapted"),
    [
        (["qkv"], {f"blocks.{n}.attn.qkv" for n in range(12)}),
        (["blocks.0.mlp.fc1", "blocks.11.mlp.fc2"], {"blocks.0.mlp.fc1", "blocks.11.mlp.fc2"}),
        (r"blocks\.[01]\..*(qkv|fc1)", {f"blocks.{n}.{layer}" for n in (0, 1) for layer in ("attn.qkv", "mlp.fc1")}),
    ],
)
def test_layers_can_be_named_by_ends_of_names_or_a_regular_expression(wanted, adapted):
    backbone = build("vit_tiny")
    strategy = LoRA(target_modules=wanted)
    strategy.prepare(backbone)
    found = {name.removeprefix("network.").split(".lora_")[0] for name in strategy.added}
    assert found == set(strategy.targets) == adapted


def test_a_layer_is_not_taken_for_another_whose_name_ends_alike():
    backbone = build("resnet18")
    strategy = LoRA(target_modules="conv1")
    strategy.prepare(backbone)
    assert {name.split(".lora_")[0] for name in strategy.added} == {"network.conv1"}


@pytest.mark.parametrize(
    ("name", "wanted", "reason"),
    [
        ("torchvision_swin", ["attn.qkv"], "reads its weights without calling it"),
        ("torchvision_vit", ["out_proj"], "reads its weights without calling it"),
        ("torchvision_vit", ["self_attention"], "neither a linear layer nor a 2d convolution"),
        ("vit_tiny", ["qvk"], r"has no layer 'qvk'. Closest: .*qkv"),
        ("vit_tiny", "blocks.(", "is no regular expression"),
        ("lenet", ["conv1"], "neither a linear layer nor a 2d convolution"),
    ],
)
def test_layers_that_cannot_be_adapted_are_refused(name, wanted, reason):
    with pytest.raises(GraftError, match=reason):
        LoRA(target_modules=wanted).prepare(build(name))


@pytest.mark.parametrize(
    ("name", "tuner", "options", "reason"),
    [
        ("resnet18", "vera", {}, "vera cannot adapt 20 of these 20 layers of resnet18.*\n.*conv1, Conv2d"),
        ("vit_tiny", "fourierft", {}, "does not start from the pretrained function"),
        ("vit_tiny", "lily", {}, "blocks.0.attn.qkv, Linear.*This method is not supported"),
    ],
)
def test_a_tuner_that_is_wrong_for_the_layers_is_refused(name, tuner, options, reason):
    backbone, strategy = build(name), PeftStrategy(tuner, options)
    with pytest.raises(GraftError, match=reason):
        strategy.prepare(backbone)


def test_layers_that_peft_adapts_wrongly_are_left_out():
    strategy = PeftStrategy("oft", {"oft_block_size": 5})  # wrong on convolutions larger than 1x1
    strategy.prepare(build("lenet"))
    assert strategy.targets == ["fc.1"]


def test_depthwise_convolutions_are_refused_where_they_are_named():
    with pytest.raises(GraftError, match=r"groups=96.*Merging is not supported"):
        LoRA(r=96, target_modules=["features.2.conv.1.0"]).prepare(build("mobilenet_v2"))


@pytest.mark.slow
def test_weight_standardised_convolutions_are_refused():
    backbone = TimmBackbone("resnetv2_50x1_bit", size=32)
    with pytest.raises(GraftError, match=r"StdConv2d.*it cannot be merged into the weights"):
        LoRA().prepare(backbone)


@pytest.mark.parametrize(
    ("tuner", "options", "message"),
    [
        ("lohaa", {}, r"no tuner of peft that adapts layers. Did you mean loha\? Tuners: .*lora"),
        ("prompt_tuning", {}, "Tuners: .*vera"),
        ("adalora", {}, "Did you mean (lora|randlora|gralora|tinylora|delora)"),
        ("loha", {"rank": 4}, r"LoHaConfig takes no 'rank'.*It takes .*\br\b"),
        ("loha", {"module_droput": 0.1}, "Did you mean module_dropout"),
        ("lora", {"target_modules": ["qkv"]}, "takes no 'target_modules'"),
        ("lora", {"layers_to_transform": [0]}, "`layers_to_transform` cannot be used"),
    ],
)
def test_wrong_tuners_and_options_are_refused_when_the_strategy_is_made(tuner, options, message):
    with pytest.raises(GraftError, match=message):
        PeftStrategy(tuner, options)


def test_how_to_install_peft_is_told_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft.mapping", None)
    with pytest.raises(GraftError, match=r'pip install "\.\[peft\]"'):
        LoRA()


def test_scales_go_without_weight_decay():
    for strategy, scales in ((IA3(), "ia3_l"), (LoRA(dora=True), "lora_magnitude_vector")):
        backbone = build("lenet")
        strategy.prepare(backbone)
        added = [(name, p) for name, p in backbone.named_parameters() if name in strategy.added]
        groups = parameter_groups({"all": added}, {}, lr=1.0, weight_decay=0.1)
        decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        assert {name: decay[id(p)] for name, p in added} == {
            name: 0.0 if scales in name else 0.1 for name in strategy.added
        }


def test_the_note_says_which_layers():
    strategy = LoRA()
    strategy.prepare(build("vit_tiny"))
    assert strategy.note == "lora adapts blocks.*.attn.qkv (12), blocks.*.attn.proj (12)"
