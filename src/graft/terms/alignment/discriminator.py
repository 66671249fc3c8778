"""Networks that find out from which domain a sample is, and the terms that train features against them."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from graft.config.types import Count, NonNegative
from graft.tasks.metrics import Mean
from graft.terms.base import Term


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


@torch.no_grad()
def domain_accuracy(source: Tensor, target: Tensor) -> Tensor:
    """How often a discriminator's logits `(B,)` name the domain, mean of both domains; .5 where it cannot tell."""
    return ((source > 0).float().mean() + (target <= 0).float().mean()) / 2


class Adversarial(Term):
    """A term with a discriminator of the domains, whose accuracy on training batches is logged beside its loss."""

    domains = ("source", "target")
    aligns = True

    def __init__(self, weight: NonNegative, hidden: Count) -> None:
        super().__init__()
        self.weight = weight
        self.hidden = hidden
        self.accuracy = Mean()

    def metrics(self) -> Mapping[str, Metric]:
        """The discriminator's accuracy."""
        return {"discriminator_acc": self.accuracy}

    def domain_loss(self, source: Tensor, target: Tensor, weights: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """`domain_loss` of the discriminator's logits in a training step, whose accuracy counts."""
        self.accuracy.update(domain_accuracy(source, target), 1)
        return domain_loss(source, target, weights)
