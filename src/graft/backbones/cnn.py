"""A two-layer convolutional network, enough for MNIST."""

from collections import OrderedDict

from torch import nn

from graft.backbones.base import ImageBackbone, Stage, refuse_size
from graft.config.types import Auto, Count, FractionBelowOne


def cnn(
    name: str = "cnn", size: Count | None = 28, channels: Auto | Count = 1, dropout: FractionBelowOne = 0.25
) -> ImageBackbone:
    """Two 5x5 convolutions of 32 and 64 maps with pooling, then 128 features. Raises GraftError below 4 pixels."""
    assert isinstance(channels, int)  # `auto` is the data's
    size = size or 28
    side = size // 4
    if side < 1:
        refuse_size(name, size, 28, "two poolings need 4 pixels")
    network = nn.Sequential(
        OrderedDict(
            conv1=nn.Sequential(nn.Conv2d(channels, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            conv2=nn.Sequential(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            fc=nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(64 * side * side, 128), nn.ReLU()),
        )
    )
    stages = [Stage(part, (f"network.{part}",)) for part in ("conv1", "conv2", "fc")]
    return ImageBackbone(name, network, size=size, channels=channels, feature_size=128, stages=stages)
