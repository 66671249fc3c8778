"""How features of several modalities become one vector: late fusion, gated fusion, or their mean."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Fusing(nn.Module):
    """Features `(B, D_m)` of M modalities and which of them are there `(B, M)` to one vector `(B, feature_size)`.

    Each modality's features are normalised over their dimension, and those that are missing replaced by a vector that
    is learned (zero at first, the mean feature). In training each modality counts as missing with probability
    `dropout` (ModDrop: Neverova et al., TPAMI 2016), but never all of a sample's.
    """

    feature_size: int

    def __init__(self, sizes: Mapping[str, int], width: int, dropout: float) -> None:
        super().__init__()
        self.names = tuple(sizes)
        self.dropout = dropout
        self.norms = nn.ModuleDict({name: nn.LayerNorm(size, elementwise_affine=False) for name, size in sizes.items()})
        self.missing = nn.ParameterDict({name: nn.Parameter(torch.zeros(size)) for name, size in sizes.items()})
        self.projections = nn.ModuleDict({name: nn.Linear(size, width) for name, size in sizes.items()})

    def forward(self, features: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """One vector a sample."""
        if self.training and self.dropout:
            present = modality_dropout(present, self.dropout)
        normalised = {
            name: torch.where(present[:, place, None], self.norms[name](features[name]), self.missing[name])
            for place, name in enumerate(self.names)
        }
        return self.fuse(normalised, self.projected(normalised))

    def projected(self, normalised: Mapping[str, Tensor]) -> Tensor:
        """Every modality in one space, `(B, M, width)`."""
        return torch.stack([self.projections[name](normalised[name]).tanh() for name in self.names], dim=1)

    def fuse(self, normalised: Mapping[str, Tensor], projected: Tensor) -> Tensor:
        """One vector of the normalised features and their projections."""
        raise NotImplementedError


class Late(Fusing):
    """The projections one behind the other."""

    def __init__(self, sizes: Mapping[str, int], width: int, dropout: float) -> None:
        super().__init__(sizes, width, dropout)
        self.feature_size = len(sizes) * width

    def fuse(self, normalised: Mapping[str, Tensor], projected: Tensor) -> Tensor:
        """All of them, `(B, M * width)`."""
        return projected.flatten(1)


class Average(Fusing):
    """The mean of the projections."""

    def __init__(self, sizes: Mapping[str, int], width: int, dropout: float) -> None:
        super().__init__(sizes, width, dropout)
        self.feature_size = width

    def fuse(self, normalised: Mapping[str, Tensor], projected: Tensor) -> Tensor:
        """Their mean, `(B, width)`."""
        return projected.mean(1)


class Gates(nn.Module):
    """How much of each modality goes into each dimension, `(B, M, width)`, from the features of all; the sum is 1."""

    def __init__(self, inputs: int, modalities: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, modalities * width)
        self.shape = (modalities, width)

    def forward(self, features: Tensor) -> Tensor:
        """Gates of concatenated features `(B, inputs)`."""
        return self.linear(features).unflatten(1, self.shape).softmax(1)


class Gated(Fusing):
    """Gated multimodal units (Arevalo et al., 2017): `sum_m z_m * tanh(W_m x_m)`, the gates z a softmax over m.

    For two modalities these are the paper's, `z` and `1 - z` with `z = sigmoid(V [x_1, x_2])`.
    """

    def __init__(self, sizes: Mapping[str, int], width: int, dropout: float) -> None:
        super().__init__(sizes, width, dropout)
        self.gates = Gates(sum(sizes.values()), len(sizes), width)
        self.feature_size = width

    def fuse(self, normalised: Mapping[str, Tensor], projected: Tensor) -> Tensor:
        """The gated sum, `(B, width)`."""
        gates = self.gates(torch.cat([normalised[name] for name in self.names], dim=1))
        return (gates * projected).sum(1)


METHODS: dict[str, type[Fusing]] = {"late": Late, "gated": Gated, "average": Average}


def modality_dropout(present: Tensor, probability: float) -> Tensor:
    """Which modalities `(B, M)` are kept: each is dropped by itself; a sample that would lose all keeps one of them.

    The draw is over what a sample has: one that has a single modality keeps it.
    """
    drawn = torch.rand(present.shape, device=present.device)
    kept = present & (drawn >= probability)
    last = torch.where(present, drawn, -1.0).argmax(1, keepdim=True)  # the one that came nearest to being kept
    saved = torch.zeros_like(present).scatter(1, last, True) & present
    return torch.where(kept.any(1, keepdim=True), kept, saved)
