"""Deep Adaptation Network: features with one mean in a reproducing kernel Hilbert space (Long et al., ICML 2015)."""

import torch
from torch import Tensor

from graft.config.types import NonNegative
from graft.terms.alignment.mmd import linear_time, multi_kernel, squared_distances, unbiased
from graft.terms.base import Term, TrainStep
from graft.terms.requirements import check_several


class DAN(Term):
    """Unbiased squared maximum mean discrepancy of both domains' features, for five Gaussian kernels, summed.

    Its expectation is 0 for equal distributions, so that it may be negative. `linear_time` compares disjoint pairs of
    samples alone, as the paper does: faster, and noisier. Raises GraftError for batches of one sample.
    """

    domains = ("source", "target")
    needs_inputs = False
    aligns = True

    def __init__(self, weight: NonNegative = 1.0, linear_time: bool = False) -> None:
        super().__init__()
        self.weight = weight
        self.linear_time = linear_time

    def forward(self, step: TrainStep) -> Tensor:
        """The discrepancy."""
        source, target = step.embeddings["source"], step.embeddings["target"]
        check_several((source, target), "dan")
        if self.linear_time:
            return linear_time(source, target)
        return unbiased(multi_kernel(squared_distances(torch.cat([source, target]))), len(source))
