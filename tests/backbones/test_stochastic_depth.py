import copy

import pytest
import timm
import torch
from lanes import one_in
from torch import nn
from torchvision.models import convnext, efficientnet, mnasnet, mobilenetv2, regnet, resnet, swin_transformer
from torchvision.models.vision_transformer import EncoderBlock
from torchvision.ops import StochasticDepth

from graft.backbones.cnn import cnn
from graft.backbones.lenet import lenet
from graft.backbones.stochastic_depth import set_drop, set_stochastic_depth
from graft.backbones.timm import TimmBackbone
from graft.backbones.torchvision import TorchvisionBackbone
from graft.errors import GraftError
from graft.strategies.base import frozen_modules
from graft.strategies.freeze_until import FreezeUntil
from graft.strategies.frozen import Frozen

BLOCKS = {
    "resnet": lambda: resnet.BasicBlock(8, 8),
    "resnet50": lambda: resnet.Bottleneck(8, 2),
    "mobilenet_v2": lambda: mobilenetv2.InvertedResidual(8, 8, stride=1, expand_ratio=2),
    "mnasnet": lambda: mnasnet._InvertedResidual(8, 8, 3, 1, 2),
    "regnet": lambda: regnet.ResBottleneckBlock(8, 8, 1, nn.BatchNorm2d, nn.ReLU, group_width=4),
    "convnext": lambda: convnext.CNBlock(8, 1.0, 0.0),
    "efficientnet": lambda: efficientnet.MBConv(efficientnet.MBConvConfig(2, 3, 1, 8, 8, 1), 0.0, nn.BatchNorm2d),
    "vit": lambda: EncoderBlock(2, 8, 16, 0.0, 0.0),
    "swin": lambda: swin_transformer.SwinTransformerBlock(8, 2, [4, 4], [0, 0]),
    "timm resnet": lambda: timm.create_model("resnet10t").layer1[0],
    "timm vit": lambda: timm.create_model("test_vit").blocks[0],
    "timm efficientnet": lambda: timm.create_model("tf_efficientnet_lite0").blocks[1][1],
}


def inputs_for(kind, samples):
    channels = {"timm resnet": 64, "timm vit": 64, "timm efficientnet": 24}.get(kind, 8)
    return torch.rand(samples, 5, channels) if "vit" in kind else torch.rand(samples, channels, 8, 8)


def drops(backbone):
    return {name: module for name, module in backbone.named_modules() if isinstance(module, StochasticDepth)}


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_block_whose_branches_are_dropped_is_its_shortcut_and_in_eval_mode_itself(kind):
    block = BLOCKS[kind]().train()
    for parameter in block.parameters():  # some begin with a branch of zeros
        nn.init.uniform_(parameter, 0.1, 0.2)
    plain = copy.deepcopy(block).eval()
    set_drop(block, 1 - 1e-7)
    assert list(block.state_dict()) == list(plain.state_dict())
    x = inputs_for(kind, 6)
    torch.testing.assert_close(copy.deepcopy(block)(x), x)  # positive, so that a last ReLU changes nothing
    assert torch.equal(block.eval()(x), plain(x))
    assert not torch.allclose(plain(x), x)


def test_each_sample_loses_its_branch_with_the_chance_given_or_gets_more_of_it():
    block = resnet.BasicBlock(2, 2).train()
    x = torch.rand(4000, 2, 2, 2)
    branch = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu())).detach()
    set_drop(block, 0.3)
    out = block(x).detach()
    dropped = (out == x).flatten(1).all(1)
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.03)
    kept = (x + branch / 0.7).relu()
    torch.testing.assert_close(out[~dropped], kept[~dropped])


@pytest.mark.parametrize(
    ("build", "blocks"),
    one_in(
        3,
        [
            (lambda: TorchvisionBackbone("resnet18", size=32), 8),
            (lambda: TorchvisionBackbone("mobilenet_v2", size=32), 10),  # of 17: the others have no shortcut
            (lambda: TorchvisionBackbone("efficientnet_b0", size=32), 9),  # of 16
            (lambda: TimmBackbone("tf_efficientnet_lite0", size=32), 9),  # of 16
            (lambda: TimmBackbone("vit_tiny_patch16_224", size=32), 12),  # with two branches each
        ],
    ),
)
def test_the_chance_rises_linearly_to_the_last_block(build, blocks):
    backbone = build()
    names = list(backbone.state_dict())
    set_stochastic_depth(backbone, 0.4)
    used = []
    for module in drops(backbone).values():
        module.register_forward_hook(lambda module, inputs, output: used.append(module.p))
    backbone.train()(torch.randn(2, 3, 32, 32))
    assert list(dict.fromkeys(used)) == pytest.approx([0.4 * number / blocks for number in range(1, blocks + 1)])
    assert used == sorted(used)
    assert list(backbone.state_dict()) == names


def test_zero_turns_off_what_a_network_brings_along():
    backbone = TorchvisionBackbone("efficientnet_b0", size=32).train()
    assert backbone.network.features[-2][0].stochastic_depth.p > 0
    set_stochastic_depth(backbone, 0.0)
    state = torch.random.get_rng_state()
    backbone(torch.randn(2, 3, 32, 32, generator=torch.Generator()))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_zero_leaves_a_network_without_residual_blocks_alone():
    set_stochastic_depth(cnn(), 0.0)


def test_the_second_setting_replaces_the_first():
    backbone = TorchvisionBackbone("resnet18", size=32)
    for probability in (0.8, 0.4):
        set_stochastic_depth(backbone, probability)
    assert max(module.p for module in drops(backbone).values()) == 0.4
    assert len(backbone.network.layer4[1].bn2._forward_hooks) == 1


@pytest.mark.parametrize("strategy", [FreezeUntil(stages=2), Frozen(train_bn=True)], ids=["freeze_until", "frozen"])
def test_nothing_is_dropped_in_a_frozen_stage(strategy):
    backbone = TorchvisionBackbone("resnet18", size=32).train()
    set_stochastic_depth(backbone, 0.5)
    (phase,) = strategy.phases(1, backbone)
    for module in frozen_modules(backbone, phase):
        module.training = False
    for name, module in drops(backbone).items():
        assert module.training is any(stage.covers(name) for stage in backbone.stages if stage.name in phase.stages)
    assert len({module.training for module in drops(backbone).values()}) == 1 + (len(phase.stages) > 0)


def test_a_copy_in_eval_mode_drops_nothing_while_the_original_trains():
    backbone = TorchvisionBackbone("resnet18", size=32)
    set_stochastic_depth(backbone, 0.9)
    backbone.train()
    teacher = copy.deepcopy(backbone).eval()
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(teacher(x), teacher(x))
    assert not torch.equal(copy.deepcopy(backbone)(x), copy.deepcopy(backbone)(x))


@pytest.mark.parametrize("build", [cnn, lenet, lambda: TorchvisionBackbone("squeezenet1_1", size=64)])
def test_a_network_without_residual_blocks_is_refused(build):
    with pytest.raises(
        GraftError, match=r"stochastic_depth=0\.1: .* no residual blocks.*backbone=resnet18, mobilenet_v2"
    ):
        set_stochastic_depth(build(), 0.1)
