"""A bottleneck between backbone and classifier, as in SHOT (Liang et al., ICML 2020)."""

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from graft.config.types import Count, FractionBelowOne
from graft.errors import GraftError


class BottleneckHead(nn.Module):
    """Linear layer and BatchNorm to an embedding `(B, width)`, which terms align, then a linear classifier.

    With `weight_norm` the classifier learns direction and length of each class's vector apart. Raises GraftError for a
    width below 1 and dropout outside [0, 1).
    """

    has_bottleneck = True

    def __init__(
        self,
        feature_size: int,
        num_outputs: int,
        width: Count = 256,
        relu: bool = False,
        dropout: FractionBelowOne = 0.0,
        weight_norm: bool = True,
    ) -> None:
        super().__init__()
        if width < 1:
            raise GraftError(f"head.width={width} must be at least 1.")
        if not 0 <= dropout < 1:
            raise GraftError(f"head.dropout={dropout} must be a fraction in [0, 1).")
        self.bottleneck = nn.Sequential(nn.Linear(feature_size, width), nn.BatchNorm1d(width))
        if relu:
            self.bottleneck.append(nn.ReLU())
        if dropout:
            self.bottleneck.append(nn.Dropout(dropout))
        self.classifier = new_classifier(width, num_outputs, weight_norm)

    def forward(self, features: Tensor) -> Tensor:
        """Predictions `(B, K)` of features `(B, D)`."""
        return self.classifier(self.bottleneck(features))


def new_classifier(width: int, num_outputs: int, normalised: bool) -> nn.Linear:
    """A linear layer, with weight normalisation or without."""
    linear = nn.Linear(width, num_outputs)
    return weight_norm(linear) if normalised else linear
