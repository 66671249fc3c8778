"""A network that finds out from which domain a sample is, and its loss."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Discriminator(nn.Sequential):
    """Two hidden layers, vectors `(B, D)` to one logit each `(B,)`: above 0 for the source."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__(
            *(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()),
            *(nn.Linear(hidden, 1), nn.Flatten(0)),
        )

    def of_domains(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of both domains, `(B, D)` to `(B,)` each, as one batch: large weights are read once a pass."""
        source_logits, target_logits = self(torch.cat([source, target])).split([len(source), len(target)])
        return source_logits, target_logits


def domain_loss(source: Tensor, target: Tensor, weights: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Binary cross entropy of a discriminator's logits `(B,)`, half of each domain whatever the batch sizes.

    log 2 where nothing distinguishes the domains. `weights` of both domains' samples have mean 1 in each.
    """
    losses = [F.softplus(-source), F.softplus(target)]
    if weights is not None:
        losses = [weight * loss for weight, loss in zip(weights, losses, strict=True)]
    return (losses[0].mean() + losses[1].mean()) / 2
