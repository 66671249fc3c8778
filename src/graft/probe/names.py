"""Names of classes as further samples of a probe: Lin et al., "Multimodality Helps Unimodality", CVPR 2023."""

from typing import Any

import torch
from torch import Tensor, nn

from graft.heads.cross_modal import CrossModalHead


@torch.no_grad()
def with_names(
    head: CrossModalHead, features: Tensor, labels: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Vectors `(N + K, E)` of features `(N, D)` and of the K names, their labels, and their weights, of mean 1.

    `weights` are those of the samples, of mean 1 too; None: all alike. Without a weight for names only the samples.
    """
    vectors = head.embed(features.to(head.rows))
    if not head.name_weight:
        return vectors, labels, weights
    names = head.vectors()
    of_samples = torch.ones(len(labels)) if weights is None else weights
    found = torch.cat([of_samples, torch.full((len(names),), head.name_weight).to(of_samples)])
    return torch.cat([vectors, names]), torch.cat([labels.long(), torch.arange(len(names))]), found / found.mean()


def names_in(head: nn.Module) -> dict[str, Any]:
    """For `results.json`: how many names were samples of the fit, and their weight; nothing of other heads."""
    if not isinstance(head, CrossModalHead):
        return {}
    return {"names": len(head.rows) if head.name_weight else 0, "name_weight": head.name_weight}
