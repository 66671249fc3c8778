import os

import pytest
import torch
from torch import nn

from graft.backbones.base import Backbone, ImageBackbone, Stage

os.environ.setdefault("WANDB_MODE", "offline")
torch.set_num_threads(1)


@pytest.fixture
def tiny_backbone():
    """Two stages, BatchNorm and dropout, 8x8 grey images to 6 features: everything that freezing has to stop."""

    def build(seed: int = 0, dropout: float = 0.0) -> Backbone:
        torch.manual_seed(seed)
        network = nn.Sequential()
        network.add_module(
            "stem", nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        )
        network.add_module(
            "layer1", nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        )
        network.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout)))
        stages = [Stage("stem", ("network.stem",)), Stage("layer1", ("network.layer1",))]
        return ImageBackbone("tiny", network, size=8, channels=1, feature_size=6, stages=stages)

    return build
