"""CDAN: no discriminator can tell domains from embeddings and predictions together (Long et al., NeurIPS 2018)."""

import math

import torch
from torch import Tensor, nn

from graft.config.types import Auto, Count, NonNegative
from graft.terms.alignment.adversary import discriminator, domain_loss, ramp, reversed_gradient
from graft.terms.alignment.base import Alignment, check_one_classifier, embedding_size
from graft.terms.base import TermContext, TrainStep

LARGEST = 4096  # values of an outer product, above which `randomised=auto` projects it


def certainty(probabilities: Tensor) -> Tensor:
    """`1 + exp(-H)` of class probabilities `(B, K)`, scaled to mean 1 `(B,)`, without a gradient."""
    entropies = torch.special.entr(probabilities.detach()).sum(dim=1)
    weights = 1 + torch.exp(-entropies)
    return weights / weights.mean()


class Outer(nn.Module):
    """All products `(B, K * E)` of class probabilities and embeddings."""

    def forward(self, probabilities: Tensor, embeddings: Tensor) -> Tensor:
        """The products."""
        return torch.einsum("bk,be->bke", probabilities, embeddings).flatten(1)


class RandomisedOuter(nn.Module):
    """The same projected at random: `(R_p p) * (R_e e) / sqrt(size)`, with Gaussian R that stay as they are."""

    def __init__(self, num_classes: int, embedding_size: int, size: int) -> None:
        super().__init__()
        self.register_buffer("of_probabilities", torch.randn(num_classes, size))
        self.register_buffer("of_embeddings", torch.randn(embedding_size, size))
        self.size = size

    def forward(self, probabilities: Tensor, embeddings: Tensor) -> Tensor:
        """The projections `(B, size)`."""
        return (probabilities @ self.of_probabilities) * (embeddings @ self.of_embeddings) / math.sqrt(self.size)


class CDAN(Alignment):
    """DANN on the products of embeddings and class probabilities; the latter get no gradient of it.

    With `entropy` (CDAN+E) a sample counts by how sure its prediction is, `1 + exp(-H)`, scaled to mean 1 within each
    domain. `randomised` projects the products to `size` values, of its own accord where there are more than 4,096.
    """

    needs_multiclass = True

    def __init__(
        self,
        weight: NonNegative = 1.0,
        entropy: bool = False,
        randomised: bool | Auto = "auto",
        size: Count = 1024,
        hidden: Count = 1024,
    ) -> None:
        super().__init__("cdan", weight)
        self.entropy = entropy
        self.randomised = randomised
        self.size = size
        self.hidden = hidden

    def check(self, context: TermContext) -> None:
        """GraftError without classes or with a head for each domain."""
        check_one_classifier(context, "cdan", "looks at class probabilities on both domains")

    def prepare(self, context: TermContext) -> None:
        """Make the discriminator and what it sees."""
        classes = check_one_classifier(context, "cdan", "looks at class probabilities on both domains")
        size = embedding_size(context)
        randomised = classes * size > LARGEST if self.randomised == "auto" else self.randomised
        self.product = RandomisedOuter(classes, size, self.size) if randomised else Outer()
        self.discriminator = discriminator(self.size if randomised else classes * size, self.hidden)

    def forward(self, step: TrainStep) -> Tensor:
        """The discriminator's loss."""
        strength, seen = ramp(step.progress), []
        probabilities = {domain: step.logits[domain].softmax(dim=1).detach() for domain in self.domains}
        for domain in self.domains:
            product = self.product(probabilities[domain], step.embeddings[domain])
            seen.append(reversed_gradient(product, strength))
        weights = (certainty(probabilities["source"]), certainty(probabilities["target"])) if self.entropy else None
        return domain_loss(self.discriminator, seen[0], seen[1], weights)
