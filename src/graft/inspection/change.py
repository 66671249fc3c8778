"""How far training moved a network: its weights from where they began, and what its stages put out."""

import torch
from torch import Tensor

from graft.backbones.base import Backbone


@torch.no_grad()
def relative_distance(before: Backbone, after: Backbone, stage: str) -> tuple[float, int, int] | None:
    """||after - before|| / ||before|| of a stage's parameters, how many tensors both have, and how many there are.

    None for a stage of which both have nothing in common, as where a strategy replaced its layers.
    """
    began, now = before.stage_parameters(stage), after.stage_parameters(stage)
    shared = [name for name, tensor in began.items() if name in now and now[name].shape == tensor.shape]
    if not shared:
        return None
    moved = sum(float((now[name].double() - began[name].double()).square().sum()) for name in shared)
    size = sum(float(began[name].double().square().sum()) for name in shared)
    return (moved / size) ** 0.5 if size else 0.0, len(shared), len(began)


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment of features `(N, C)` and `(N, D)` of the same samples (Kornblith et al., 2019).

    1 where one is the other but for a rotation, scale and offset; 0 where nothing agrees, or one is constant.
    """
    x, y = (values.double() - values.double().mean(0) for values in (first, second))
    if x.shape[0] < x.shape[1] or x.shape[0] < y.shape[1]:  # the same by Gram matrices, which are smaller then
        gram_x, gram_y = x @ x.T, y @ y.T
        cross, own = (gram_x * gram_y).sum(), gram_x.norm() * gram_y.norm()
    else:
        cross, own = (x.T @ y).square().sum(), (x.T @ x).norm() * (y.T @ y).norm()
    return min(float(cross / own), 1.0) if own > torch.finfo(torch.float64).tiny else 0.0
