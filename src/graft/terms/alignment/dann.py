"""Domain-Adversarial Neural Network: no discriminator shall know the domain (Ganin et al., JMLR 2016)."""

from torch import Tensor

from graft.config.types import Count, NonNegative
from graft.terms.alignment.discriminator import Adversarial, Discriminator
from graft.terms.alignment.reversal import ramp, reverse
from graft.terms.base import TermContext, TrainStep


class DANN(Adversarial):
    """A discriminator's loss; it learns to find the domain of a feature, and the features learn to hide it.

    Features get the discriminator's gradient reversed, with a strength that rises from 0 to 1 over the run.
    """

    needs_inputs = False

    def __init__(self, weight: NonNegative = 1.0, hidden: Count = 1024) -> None:
        super().__init__(weight, hidden)

    def prepare(self, context: TermContext) -> None:
        """Make the discriminator."""
        self.discriminator = Discriminator(context.embedding_size, self.hidden)

    def forward(self, step: TrainStep) -> Tensor:
        """The discriminator's loss on both domains."""
        strength = ramp(step.progress)
        source, target = (reverse(step.embeddings[domain], strength) for domain in ("source", "target"))
        return self.domain_loss(*self.discriminator.of_domains(source, target))
