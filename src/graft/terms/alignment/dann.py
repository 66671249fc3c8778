"""DANN: no discriminator can tell whose embeddings these are (Ganin et al., JMLR 2016)."""

from torch import Tensor

from graft.config.types import Count, NonNegative
from graft.terms.alignment.adversary import discriminator, domain_loss, ramp, reversed_gradient
from graft.terms.alignment.base import Alignment, embedding_size
from graft.terms.base import TermContext, TrainStep


class DANN(Alignment):
    """A discriminator's loss on the embeddings of both domains, whose gradient is reversed on its way into them.

    The reversal's strength rises over training from 0 to 1.
    """

    def __init__(self, weight: NonNegative = 1.0, hidden: Count = 1024) -> None:
        super().__init__("dann", weight)
        self.hidden = hidden

    def prepare(self, context: TermContext) -> None:
        """Make the discriminator."""
        self.discriminator = discriminator(embedding_size(context), self.hidden)

    def forward(self, step: TrainStep) -> Tensor:
        """The discriminator's loss."""
        strength = ramp(step.progress)
        source, target = (reversed_gradient(step.embeddings[domain], strength) for domain in self.domains)
        return domain_loss(self.discriminator, source, target)
