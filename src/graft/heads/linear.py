"""A linear head."""

from torch import Tensor, nn


class LinearHead(nn.Module):
    """One linear layer, features `(B, D)` to outputs `(B, K)`."""

    linear_in_features = True  # a vector for each class

    def __init__(self, feature_size: int, num_outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_size, num_outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Predictions `(B, K)` of features `(B, D)`."""
        return self.linear(features)
