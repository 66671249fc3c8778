"""Feature distillation: features shall stay what the frozen pretrained backbone makes of the same inputs.

The distance of FitNets (Romero et al., ICLR 2015), which Less-forgetting Learning (Jung et al., 2016) has between a
network and its own past; between unit vectors it is the less-forget constraint of LUCIR (Hou et al., CVPR 2019).
"""

import torch.nn.functional as F
from torch import Tensor

from graft.config.types import NonNegative
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.requirements import check_at_least, check_pretrained


def feature_distance(features: Tensor, pretrained: Tensor, normalize: bool) -> Tensor:
    """`1/2 ||f - f0||^2`, mean over samples; features `(B, D)`, with `normalize` scaled to length 1: 1 - cosine."""
    if normalize:
        features, pretrained = F.normalize(features), F.normalize(pretrained)
    return F.mse_loss(features, pretrained, reduction="sum") / (2 * len(features))


class FeatureDistillation(Term):
    """Distance of a step's features to those of the frozen pretrained backbone in eval mode."""

    needs_pretrained = True

    def __init__(self, weight: NonNegative = 1.0, normalize: bool = True) -> None:
        super().__init__()
        check_at_least("feature_distillation.weight", weight, 0)
        self.weight = weight
        self.normalize = normalize

    def prepare(self, context: TermContext) -> None:
        """Take the frozen pretrained backbone."""
        check_pretrained(context, "feature_distillation")
        self._teacher = context.teacher

    def forward(self, step: TrainStep) -> Tensor:
        """Mean distance over the samples of all domains."""
        return feature_distance(step.all_features, self._teacher.features(step.all_inputs), self.normalize)
