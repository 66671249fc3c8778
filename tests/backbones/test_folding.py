import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from graft.backbones.folding import fold_batchnorm
from graft.backbones.split_backbone import eval_mode
from graft.backbones.timm import TimmBackbone
from graft.backbones.torchvision import TorchvisionBackbone


def with_statistics(network):
    """Statistics, scales and shifts as after training."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.bias)
    return network


def norms(network):
    return sum(isinstance(module, _BatchNorm) for module in network.modules())


@pytest.mark.parametrize(
    "build",
    [
        lambda: TorchvisionBackbone("resnet18", size=32),
        lambda: TorchvisionBackbone("mobilenet_v2", size=32),
        lambda: TimmBackbone("tf_efficientnet_lite0", size=32),
        lambda: TimmBackbone("resnet10t", size=32),
    ],
)
def test_the_folded_network_computes_the_same(build):
    backbone = with_statistics(build()).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    folded = fold_batchnorm(backbone, backbone.example_inputs())
    images = torch.randn(3, *backbone.input_shape)
    with eval_mode(backbone), torch.no_grad():
        torch.testing.assert_close(folded(images), backbone(images), rtol=1e-4, atol=1e-5)
    assert norms(folded) == 0
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_linear_layers_and_convolutions_in_one_dimension_are_folded_too():
    network = with_statistics(
        nn.Sequential(
            nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5), nn.BatchNorm1d(5)
        )
    ).eval()
    x = torch.randn(2, 3, 8)
    folded = fold_batchnorm(network, x)
    assert norms(folded) == 0
    torch.testing.assert_close(folded(x), network(x), rtol=1e-4, atol=1e-5)


class UsedTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x):
        x = self.layer(x)
        return x + self.norm(x)


def test_a_layer_whose_output_is_used_elsewhere_stays():
    network = with_statistics(UsedTwice()).eval()
    assert fold_batchnorm(network, torch.randn(2, 1, 5, 5)) is network


def test_a_network_without_batchnorm_is_not_copied():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm(3))
    assert fold_batchnorm(network, torch.randn(2, 1, 5, 5)) is network
