import pytest
import torch
from lanes import slow
from torch import nn

from graft.backbones.base import ImageBackbone, Stage
from graft.backbones.checkpointing import checkpoint_gradients
from graft.backbones.split_backbone import FEATURES, active_modules, eval_mode, find_split, weights_hash
from graft.backbones.timm import TimmBackbone
from graft.backbones.torchvision import TorchvisionBackbone
from graft.strategies.base import Strategy, frozen_modules, stage_names
from tests.backbones.test_folding import with_statistics

NETWORKS = {
    "resnet18": (lambda: TorchvisionBackbone("resnet18", size=32), "network.layer3"),
    "densenet121": (lambda: TorchvisionBackbone("densenet121", size=32), "network.features.transition3"),
    "googlenet": (lambda: TorchvisionBackbone("googlenet", size=64), "network.maxpool4"),
    "swin_t": (lambda: TorchvisionBackbone("swin_t", size=64), "network.features.5"),
    "vit_tiny_patch16_224": (lambda: TimmBackbone("vit_tiny_patch16_224", size=32), "network.blocks.10"),
    "tf_efficientnet_lite0": (lambda: TimmBackbone("tf_efficientnet_lite0", size=32), "network.blocks.5"),
}


def enter(backbone, stages, names=None):
    """Freeze all but some stages as the module does; returns what find_split wants to know."""
    phase = Strategy().phase(1, backbone, stages, names)
    backbone.train()
    frozen = frozen_modules(backbone, phase)
    for module in frozen:
        module.training = False
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name in phase.parameters)
    return active_modules(backbone, frozen, phase.parameters)


@pytest.mark.parametrize("name", ["resnet18", *slow(*list(NETWORKS)[1:])])
def test_values_and_gradients_are_those_of_the_whole_network(name):
    build, expected_cut = NETWORKS[name]
    backbone = with_statistics(build())
    cut = find_split(backbone, enter(backbone, stage_names(backbone)[-1:]))
    images = torch.randn(3, *backbone.input_shape)
    with eval_mode(backbone):
        expected = backbone(images)
        expected.square().sum().backward()
        gradients = {n: p.grad.clone() for n, p in backbone.named_parameters() if p.requires_grad}
        backbone.zero_grad()
        for batch in (images, images[:2], images):  # shapes that come again
            features = cut.rest(cut.trunk(batch))
            torch.testing.assert_close(features, expected[: len(batch)], rtol=1e-4, atol=1e-4)
        features.square().sum().backward()
    assert cut.name == expected_cut
    assert gradients
    for key, parameter in backbone.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, gradients[key], rtol=1e-3, atol=1e-3)
        else:
            assert parameter.grad is None


def test_a_frozen_backbone_is_cut_behind_its_features():
    backbone = with_statistics(TorchvisionBackbone("resnet18", size=32))
    cut = find_split(backbone, enter(backbone, ()))
    images = torch.randn(3, *backbone.input_shape)
    assert cut.whole
    assert cut.name == FEATURES
    torch.testing.assert_close(cut.rest(cut.trunk(images)), backbone(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stages", [("conv1",), ("conv1", "layer4")])
def test_where_the_first_layer_trains_there_is_no_cut(stages):
    backbone = TorchvisionBackbone("resnet18", size=32)
    assert find_split(backbone, enter(backbone, stages)) is None


def test_batchnorm_that_trains_in_a_frozen_stage_is_not_cut_off():
    backbone = TorchvisionBackbone("resnet18", size=32)
    norms = [f"network.layer2.0.bn1.{key}" for key in ("weight", "bias")]
    cut = find_split(backbone, enter(backbone, (), norms))
    assert cut.name == "network.layer1"  # not inside the block, whose shortcut begins before


def test_a_cut_inside_a_residual_block_moves_to_its_beginning():
    backbone = TorchvisionBackbone("resnet18", size=32)
    names = [name for name, _ in backbone.named_parameters() if name.startswith("network.layer4.1.conv2")]
    active = enter(backbone, (), names)
    assert find_split(backbone, active).name == "network.layer4.0"


def test_the_rest_may_checkpoint_its_gradients():
    backbone = with_statistics(TorchvisionBackbone("resnet18", size=32))
    checkpoint_gradients(backbone)
    cut = find_split(backbone, enter(backbone, ("layer4",)))
    images = torch.randn(2, *backbone.input_shape)
    weight = backbone.network.layer4[0].conv1.weight
    with eval_mode(backbone):
        cut.rest(cut.trunk(images)).sum().backward()
        gradient = weight.grad.clone()
        backbone.zero_grad()
        backbone(images).sum().backward()
    torch.testing.assert_close(gradient, weight.grad, rtol=1e-3, atol=1e-3)


def test_the_network_is_left_as_it_was():
    backbone = TorchvisionBackbone("resnet18", size=32)
    active = enter(backbone, ("layer4",))
    state = {name: value.clone() for name, value in backbone.state_dict().items()}
    modes = [module.training for module in backbone.modules()]
    random = torch.get_rng_state()
    cut = find_split(backbone, active)
    cut.rest(cut.trunk(backbone.example_inputs()))
    assert torch.equal(torch.get_rng_state(), random)
    assert modes == [module.training for module in backbone.modules()]
    assert not any("forward" in module.__dict__ or module._forward_hooks for module in backbone.modules())
    moved = {name for name, value in backbone.state_dict().items() if not torch.equal(value, state[name])}
    assert all(name.startswith("network.layer4") for name in moved)  # statistics of the batch that `finish` saw


class LooksAtEverything(nn.Module):
    """Adds the first layer's output to the last one's: nothing between them can be left out."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        first = self.first(x)
        return (first + self.third(self.second(first))).mean((2, 3))


def test_values_that_bypass_a_layer_move_the_cut_before_it():
    stages = [Stage(name, (f"network.{name}",)) for name in ("first", "second", "third")]
    backbone = ImageBackbone("bypass", LooksAtEverything(), size=4, channels=1, feature_size=4, stages=stages)
    assert find_split(backbone, enter(backbone, ("third",))).name == "network.first"


def test_the_hash_is_of_what_stays_as_it_is():
    backbone = TorchvisionBackbone("resnet18", size=32)
    active = enter(backbone, ("layer4",))
    before = weights_hash(backbone, active)
    with torch.no_grad():
        backbone.network.layer4[0].conv1.weight.add_(1)
        backbone.network.layer4[0].bn1.running_mean.add_(1)
    assert weights_hash(backbone, active) == before
    for tensor in (backbone.network.layer3[0].bn1.running_mean, backbone.input_mean):
        tensor.data.add_(1)
        changed = weights_hash(backbone, active)
        assert changed != before
        before = changed
