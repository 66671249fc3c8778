"""GroupDRO: the sources with the largest loss count most (Sagawa et al., ICLR 2020)."""

import torch
from torch import Tensor

from graft.config.types import NonNegative
from graft.terms.base import TermContext, TrainStep
from graft.terms.generalization.base import OverSources
from graft.terms.requirements import check_at_least


class GroupDRO(OverSources):
    """`sum_g q_g R_g - L_source`: in the place of the source's mean loss the sources' losses R, weighted by q.

    With `objective.alpha=1` and weight 1 the whole is GroupDRO's loss. In every step `q_g` is multiplied by
    `exp(eta R_g)` (1 for a source that the batch lacks) and scaled to a sum of 1 before it weighs.
    """

    name = "groupdro"
    group_weights: Tensor

    def __init__(self, weight: NonNegative = 1.0, eta: NonNegative = 0.01) -> None:
        super().__init__()
        check_at_least("groupdro.weight", weight, 0)
        check_at_least("groupdro.eta", eta, 0)
        self.weight = weight
        self.eta = eta

    def prepare(self, context: TermContext) -> None:
        """Begin with equal weights."""
        super().prepare(context)
        self.register_buffer("group_weights", torch.full((self.num_sources,), 1 / self.num_sources))

    def forward(self, step: TrainStep) -> Tensor:
        """The weighted loss less the objective's."""
        present, risks = self.risks(step)
        self.raise_weights(present, risks.detach())
        return (self.group_weights[present] * risks).sum() - self.loss(step)

    @torch.no_grad()
    def raise_weights(self, present: list[int], risks: Tensor) -> None:
        """Exponentiated gradient ascent on the weights; risks `(S,)` of the sources `present`."""
        grown = self.group_weights.clone()
        grown[present] *= (self.eta * risks).exp().to(grown)
        grown /= grown.sum()
        if grown.isfinite().all():  # a step whose loss is not is left out, see graft.callbacks.nonfinite
            self.group_weights.copy_(grown)
