"""LeNet in the 20-50-500 form of the digits benchmarks."""

from collections import OrderedDict

from torch import nn

from graft.backbones.base import ImageBackbone, Stage, refuse_size
from graft.config.types import Auto, Count, FractionBelowOne


def lenet(
    name: str = "lenet",
    size: Count | None = 28,
    channels: Auto | Count = 1,
    dropout: FractionBelowOne = 0.5,
    features: Count | None = 500,
) -> ImageBackbone:
    """LeNet for small images: two convolutions of 20 and 50 maps, then a layer of `features` units.

    Without that layer the features are the second convolution's maps, flattened: 800 numbers at 28 pixels (as in SHOT).

    Raises GraftError below 16 pixels.
    """
    assert isinstance(channels, int)  # `auto` is the data's
    size = size or 28
    side = ((size - 4) // 2 - 4) // 2
    if side < 1:
        refuse_size(name, size, 28, "two 5x5 convolutions with pooling need 16 pixels")
    flat = 50 * side * side
    fc = nn.Sequential(nn.Flatten())
    network = nn.Sequential(
        OrderedDict(
            conv1=nn.Sequential(nn.Conv2d(channels, 20, 5), nn.MaxPool2d(2), nn.ReLU()),
            conv2=nn.Sequential(nn.Conv2d(20, 50, 5), nn.Dropout2d(dropout), nn.MaxPool2d(2), nn.ReLU()),
            fc=fc,
        )
    )
    stages = ["conv1", "conv2"]
    if features is not None:
        fc.extend([nn.Linear(flat, features), nn.ReLU(), nn.Dropout(dropout)])
        stages.append("fc")
    return ImageBackbone(
        name,
        network,
        size=size,
        channels=channels,
        feature_size=features or flat,
        stages=[Stage(part, (f"network.{part}",)) for part in stages],
    )
