"""Adversarial Discriminative Domain Adaptation: the target gets an encoder of its own (Tzeng et al., CVPR 2017)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from graft.config.types import Count, NonNegative
from graft.errors import GraftError
from graft.heads.base import has_bottleneck
from graft.terms.alignment.discriminator import Adversarial, Discriminator
from graft.terms.base import TermContext, TrainStep, Update
from graft.terms.requirements import check_pretrained


class ADDA(Adversarial):
    """The loss of a discriminator of the pretrained backbone's source features and the backbone's target features.

    Then, on the same batch, a step of the backbone alone by the loss of the opposite labels. The backbone begins as the
    one that was pretrained on the source, which stays as it is for the source. Raises GraftError for random weights and
    a head with a bottleneck.
    """

    needs_pretrained = True

    def __init__(self, weight: NonNegative = 1.0, hidden: Count = 500) -> None:
        super().__init__(weight, hidden)

    def check(self, context: TermContext) -> None:
        """GraftError for a head with a bottleneck, of which there is no copy from before."""
        if has_bottleneck(context.target_head):
            raise GraftError("term.adda compares features of the backbone. Use head=linear, or leave the term out.")

    def prepare(self, context: TermContext) -> None:
        """Keep the source's encoder and make the discriminator."""
        check_pretrained(context, "adda")
        self.check(context)
        self.encoder = context.teacher
        self.discriminator = Discriminator(context.backbone.feature_size, self.hidden)

    def forward(self, step: TrainStep) -> Tensor:
        """The discriminator's loss, which moves the discriminator alone."""
        source, target = self.encoder.features(step.inputs["source"]), step.features["target"].detach()
        return self.domain_loss(*self.discriminator.of_domains(source, target))

    def updates(self) -> Sequence[Update]:
        """The backbone's step."""
        return (Update(self.hide, ("backbone",)),)

    def hide(self, step: TrainStep) -> Tensor:
        """Cross entropy of the discriminator taking the target for the source."""
        return self.weight * F.softplus(-self.discriminator(step.features["target"])).mean()
