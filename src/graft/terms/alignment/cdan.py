"""Conditional Domain-Adversarial Network: the discriminator also sees the predictions (Long et al., NeurIPS 2018)."""

import math

import torch
from torch import Tensor

from graft.config.types import Count, NonNegative
from graft.terms.alignment.discriminator import Adversarial, Discriminator
from graft.terms.alignment.reversal import ramp, reverse
from graft.terms.base import TermContext, TrainStep
from graft.terms.entropy import entropies
from graft.terms.requirements import check_shared_classes


def certainty_weights(logits: Tensor) -> Tensor:
    """1 + exp(-entropy) of each prediction, scaled to mean 1 `(B,)`; without gradient."""
    weights = 1 + (-entropies(logits.detach())).exp()
    return weights / weights.mean()


class CDAN(Adversarial):
    """DANN's loss of a discriminator that sees every product of a class probability and a feature, `(B, K * D)`.

    No gradient goes through the probabilities. `entropy` lets sure predictions count more (CDAN+E). `randomised` takes
    products of `projection_size` random projections of both instead, for large K * D. Raises GraftError without classes
    or with a head for each domain.
    """

    needs_multiclass = True
    needs_inputs = False
    of_features: Tensor  # random projections, where there are some
    of_classes: Tensor

    def __init__(
        self,
        weight: NonNegative = 1.0,
        hidden: Count = 1024,
        entropy: bool = True,
        randomised: bool = False,
        projection_size: Count = 1024,
    ) -> None:
        super().__init__(weight, hidden)
        self.entropy = entropy
        self.randomised = randomised
        self.projection_size = projection_size

    def check(self, context: TermContext) -> None:
        """GraftError without classes or with a head for each domain."""
        check_shared_classes(context, "cdan")

    def prepare(self, context: TermContext) -> None:
        """Make the discriminator, and draw the projections where it sees some."""
        self.check(context)
        assert context.num_classes is not None
        size = context.embedding_size * context.num_classes
        if self.randomised:
            size = self.projection_size
            self.register_buffer("of_features", torch.randn(context.embedding_size, size))
            self.register_buffer("of_classes", torch.randn(context.num_classes, size))
        self.discriminator = Discriminator(size, self.hidden)

    def forward(self, step: TrainStep) -> Tensor:
        """The discriminator's loss on both domains."""
        logits = self.discriminator.of_domains(self.seen(step, "source"), self.seen(step, "target"))
        weights = certainty_weights(step.logits["source"]), certainty_weights(step.logits["target"])
        return self.domain_loss(*logits, weights if self.entropy else None)

    def seen(self, step: TrainStep, domain: str) -> Tensor:
        """What the discriminator sees of a domain: `(B, K * D)`, or `(B, projection_size)` of random projections."""
        features = reverse(step.embeddings[domain], ramp(step.progress))
        classes = step.logits[domain].detach().softmax(dim=1)
        if self.randomised:
            return (features @ self.of_features) * (classes @ self.of_classes) / math.sqrt(self.projection_size)
        return (classes[:, :, None] * features[:, None, :]).flatten(1)
