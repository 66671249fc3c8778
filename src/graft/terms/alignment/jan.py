"""Joint Adaptation Network: features and predictions with one joint distribution (Long et al., ICML 2017)."""

import torch
from torch import Tensor

from graft.config.types import NonNegative, Positive
from graft.terms.alignment.mmd import multi_kernel, squared_distances, unbiased
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.requirements import check_several, check_shared_classes


class JAN(Term):
    """DAN's discrepancy, whose kernel of the features is multiplied with one of the class probabilities.

    That of the probabilities is one Gaussian of standard deviation `sigma`. Raises GraftError without classes, with a
    head for each domain and for batches of one sample.
    """

    needs_multiclass = True
    domains = ("source", "target")
    needs_inputs = False

    def __init__(self, weight: NonNegative = 1.0, sigma: Positive = 0.92) -> None:
        super().__init__()
        self.weight = weight
        self.sigma = sigma

    def check(self, context: TermContext) -> None:
        """GraftError without classes or with a head for each domain."""
        check_shared_classes(context, "jan")

    def forward(self, step: TrainStep) -> Tensor:
        """The joint discrepancy."""
        source, target = step.embeddings["source"], step.embeddings["target"]
        check_several((source, target), "jan")
        classes = torch.cat([step.logits["source"], step.logits["target"]]).softmax(dim=1)
        of_classes = (-squared_distances(classes) / (2 * self.sigma**2)).exp()
        of_features = multi_kernel(squared_distances(torch.cat([source, target])))
        return unbiased(of_features * of_classes, len(source))
