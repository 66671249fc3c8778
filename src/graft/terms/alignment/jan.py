"""JAN: embeddings and predictions of source and target are alike jointly (Long et al., ICML 2017)."""

import torch
from torch import Tensor

from graft.config.types import NonNegative
from graft.terms.alignment.base import Alignment, check_one_classifier
from graft.terms.alignment.dan import gaussians, mmd
from graft.terms.base import TermContext, TrainStep

SIGMA = 0.92  # of the kernel of class probabilities, as in the authors' code


class JAN(Alignment):
    """Joint maximum mean discrepancy: of the product of a kernel of embeddings and one of class probabilities."""

    needs_multiclass = True
    least = 2

    def __init__(self, weight: NonNegative = 1.0) -> None:
        super().__init__("jan", weight)

    def check(self, context: TermContext) -> None:
        """GraftError without classes or with a head for each domain."""
        check_one_classifier(context, "jan", "compares class probabilities on both domains")

    def forward(self, step: TrainStep) -> Tensor | None:
        """The discrepancy; None for a batch of a single sample."""
        if (pair := self.pair(step)) is None:
            return None
        probabilities = torch.cat([step.logits["source"], step.logits["target"]]).softmax(dim=1)
        kernel = gaussians(torch.cat(pair)) * gaussians(probabilities, SIGMA)
        return mmd(kernel, [len(rows) for rows in pair])
