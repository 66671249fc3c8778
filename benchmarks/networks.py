"""The networks that the contestants train."""

from collections import OrderedDict

from torch import nn
from torchvision import models

from graft.backbones.base import Backbone, ImageBackbone, Stage
from graft.backbones.lenet import lenet
from graft.config.types import Auto, Count

CLASSES = {"lenet": 10, "resnet18": 5, "resnet50": 5}


def build(name: str) -> nn.Module:
    """The network of a plan as a plain PyTorch module, for those who do not know Graft."""
    if name == "lenet":
        backbone = lenet(size=28)
        return nn.Sequential(backbone.network, nn.Linear(backbone.feature_size, CLASSES[name]))
    return models.get_model(name, num_classes=CLASSES[name])


def wide(name: str, size: int, channels: Auto | Count, features: int) -> Backbone:
    """A Graft backbone with as many features as one likes, whose work is proportional to them."""
    assert isinstance(channels, int)  # `auto` is the data's
    convolution = nn.Sequential(nn.Conv2d(channels, features, size), nn.Flatten(), nn.ReLU())
    network = nn.Sequential(OrderedDict(conv1=convolution))
    stages = [Stage("conv1", ("network.conv1",))]
    return ImageBackbone(name, network, size=size, channels=channels, feature_size=features, stages=stages)
