"""BYOL: one view predicts what a moving average of the network makes of the other (Grill et al., NeurIPS 2020)."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.config.types import Count, FractionBelowOne, NonNegative
from graft.terms.base import TermContext, TrainStep
from graft.terms.pretext.two_views import Side, TwoViews, perceptron
from graft.terms.processes import gathered, gathered_to_learn
from graft.terms.requirements import check_several


def regression(predictions: Tensor, projections: Tensor) -> Tensor:
    """Mean of `2 - 2 cos` between predictions and projections `(B, P)`: squared distance of vectors of length 1."""
    return (2 - 2 * F.cosine_similarity(predictions, projections, dim=1)).mean()


def decay_at(progress: float, start: float) -> float:
    """The average's decay, which rises from `start` to 1: 1 - (1 - start) (cos(pi progress) + 1) / 2."""
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2


class BYOL(TwoViews):
    """Each view's predicted projection near the other view's projection by the moving average of the weights.

    Projector and predictor have two layers with BatchNorm as in the paper. The average is of backbone and projector; it
    runs in training mode, with BatchNorm statistics of its own. The statistics behind the features are those of all
    processes' samples. Raises GraftError for batches of one sample.
    """

    def __init__(
        self,
        weight: NonNegative = 1.0,
        domain: Side = "source",
        decay: FractionBelowOne = 0.99,
        hidden_size: Count = 512,
        projection_size: Count = 128,
    ) -> None:
        super().__init__(weight, domain)
        self.decay = decay
        self.hidden_size = hidden_size
        self.projection_size = projection_size

    def prepare(self, context: TermContext) -> None:
        """Make projector, predictor and the average, which begins as the network."""
        super().prepare(context)
        self.projector = perceptron(
            (context.backbone.feature_size, self.hidden_size, self.projection_size), normalised=True
        )
        self.predictor = perceptron((self.projection_size, self.hidden_size, self.projection_size), normalised=True)
        self.average = nn.Sequential(copy.deepcopy(context.backbone), copy.deepcopy(self.projector))
        self.average.requires_grad_(False)
        self._now = self.decay

    def forward(self, step: TrainStep) -> Tensor:
        """The sum over both directions of the step's samples."""
        (domain,) = self.domains
        first, second = step.batch[domain].inputs, step.batch[domain].views["weak"]
        features = [gathered_to_learn(one) for one in (step.features[domain], self.backbone(second))]
        check_several(features, "byol")
        self._now = decay_at(step.progress, self.decay)
        predicted = [self.predictor(self.projector(one)) for one in features]
        backbone, projector = self.average
        with torch.no_grad():
            wanted = [projector(gathered(backbone(one))) for one in (second, first)]  # each the other view's
        return regression(predicted[0], wanted[0]) + regression(predicted[1], wanted[1])

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the average towards the network."""
        for averaged, trained in zip(self.average, (self.backbone, self.projector), strict=True):
            for own, parameter in zip(averaged.parameters(), trained.parameters(), strict=True):
                own.lerp_(parameter, 1 - self._now)
