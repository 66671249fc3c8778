"""Maximum mean discrepancy of two batches (Gretton et al., JMLR 2012)."""

import torch
from torch import Tensor

SCALES = tuple(2.0**power for power in range(-3, 2))  # of the kernels' variance over the mean squared distance


def squared_distances(x: Tensor) -> Tensor:
    """Between all samples of `(N, D)`, `(N, N)`; computed from differences, so that near samples keep their digits."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square()


def gaussians(distances: Tensor, mean: Tensor) -> Tensor:
    """Sum of five Gaussian kernels of squared distances, whose variances are SCALES times the mean distance."""
    variance = mean.detach().clamp_min(torch.finfo(distances.dtype).tiny)
    return torch.stack([(-distances / (2 * scale * variance)).exp() for scale in SCALES]).sum(dim=0)


def multi_kernel(distances: Tensor) -> Tensor:
    """`gaussians` of squared distances `(N, N)` between all samples, with their mean over distinct samples."""
    return gaussians(distances, distances.sum() / (len(distances) * (len(distances) - 1)))


def unbiased(kernel: Tensor, size: int) -> Tensor:
    """Unbiased squared discrepancy of the first `size` samples and the others, from their kernel `(N, N)`.

    Each domain's mean leaves out a sample's kernel with itself, so that the value may be negative.
    """
    within = (
        (block.sum() - block.diagonal().sum()) / (len(block) * (len(block) - 1))
        for block in (kernel[:size, :size], kernel[size:, size:])
    )
    return sum(within, start=-2 * kernel[:size, size:].mean())


def linear_time(source: Tensor, target: Tensor) -> Tensor:
    """Unbiased squared discrepancy of `(B, D)` each from disjoint pairs of samples, in time linear in B.

    The paper's batches are of one size; of unequal ones the larger's last samples do not count.
    """
    pairs = min(len(source), len(target)) // 2
    (a, b), (c, d) = (x[: 2 * pairs].reshape(pairs, 2, -1).unbind(dim=1) for x in (source, target))
    distances = torch.stack([(x - y).square().sum(dim=1) for x, y in ((a, b), (c, d), (a, d), (b, c))])
    within_source, within_target, one, other = gaussians(distances, distances.mean())
    return (within_source + within_target - one - other).mean()
