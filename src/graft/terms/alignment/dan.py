"""DAN: source and target embeddings have the same mean in the spaces of several kernels (Long et al., ICML 2015)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from graft.config.types import NonNegative
from graft.terms.alignment.base import Alignment
from graft.terms.base import TrainStep

SCALES = tuple(2.0**power for power in range(-3, 2))  # of sigma^2 over the mean squared distance


def gaussians(rows: Tensor, sigma: float | None = None) -> Tensor:
    """Kernel values `(N, N)` of rows `(N, D)`: `exp(-d^2 / (2 sigma^2))`.

    Without a sigma the sum over SCALES of `sigma^2 = scale * mean of d^2` over all N^2 pairs, which is not followed by
    gradients.
    """
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    if sigma is not None:
        return torch.exp(-distances / (2 * sigma**2))
    mean = distances.detach().mean().clamp_min(torch.finfo(rows.dtype).tiny)
    return torch.stack([torch.exp(-distances / (2 * scale * mean)) for scale in SCALES]).sum(dim=0)


def mmd(kernel: Tensor, sizes: Sequence[int]) -> Tensor:
    """Unbiased squared maximum mean discrepancy of a kernel `(N, N)` over `sizes` source and target samples.

    It is negative where both are the same samples, and 0 in expectation where they have one distribution.
    """
    n, m = sizes
    within_source, within_target = kernel[:n, :n], kernel[n:, n:]
    source = (within_source.sum() - within_source.diagonal().sum()) / (n * (n - 1))
    target = (within_target.sum() - within_target.diagonal().sum()) / (m * (m - 1))
    return source + target - 2 * kernel[:n, n:].mean()


def linear_mmd(kernel: Tensor, sizes: Sequence[int]) -> Tensor:
    """The same from `B / 2` quadruples of neighbouring samples, of equal batches: noisier, and linear in B."""
    first = torch.arange(0, min(sizes) - 1, 2, device=kernel.device)
    second, n = first + 1, sizes[0]
    within = kernel[first, second] + kernel[n + first, n + second]
    return (within - kernel[first, n + second] - kernel[second, n + first]).mean()


class DAN(Alignment):
    """Squared maximum mean discrepancy of source and target embeddings under five Gaussian kernels, summed.

    `estimator=linear` needs batches of equal size: of others the first samples are taken.
    """

    least = 2

    def __init__(self, weight: NonNegative = 1.0, estimator: Literal["quadratic", "linear"] = "quadratic") -> None:
        super().__init__("dan", weight)
        self.estimate = mmd if estimator == "quadratic" else linear_mmd

    def forward(self, step: TrainStep) -> Tensor | None:
        """The discrepancy; None for a batch of a single sample."""
        if (pair := self.pair(step)) is None:
            return None
        return self.estimate(gaussians(torch.cat(pair)), [len(rows) for rows in pair])
