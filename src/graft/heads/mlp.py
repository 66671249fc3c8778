"""A head with hidden layers."""

from collections.abc import Sequence
from typing import Annotated, Literal

from annotated_types import MinLen
from torch import Tensor, nn

from graft.config.types import Count, FractionBelowOne
from graft.errors import GraftError

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "silu": nn.SiLU, "leaky_relu": nn.LeakyReLU}


class MLPHead(nn.Module):
    """Hidden layers with activation and dropout after each, then a linear layer.

    Raises GraftError for an activation that is not in ACTIVATIONS, widths below 1 and dropout outside [0, 1).
    """

    def __init__(
        self,
        feature_size: int,
        num_outputs: int,
        hidden: Annotated[Sequence[Count], MinLen(1)] = (256,),
        activation: Literal["relu", "gelu", "tanh", "silu", "leaky_relu"] = "relu",
        dropout: FractionBelowOne = 0.0,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise GraftError(f"head.activation={activation} is not known. Allowed: {', '.join(ACTIVATIONS)}.")
        if not hidden or min(hidden) < 1:
            raise GraftError(
                f"head.hidden={list(hidden)} must be widths of at least 1. Without hidden layers: head=linear"
            )
        if not 0 <= dropout < 1:
            raise GraftError(f"head.dropout={dropout} must be a fraction in [0, 1).")
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(feature_size, width), ACTIVATIONS[activation](), nn.Dropout(dropout)]
            feature_size = width
        self.layers = nn.Sequential(*layers, nn.Linear(feature_size, num_outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Predictions `(B, K)` of features `(B, D)`."""
        return self.layers(features)
