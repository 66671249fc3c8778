"""What terms have in common that compare two augmented views of a sample."""

import itertools
from typing import Literal

from torch import Tensor, nn

from graft.backbones.base import Backbone
from graft.terms.base import Term, TermContext, TrainStep

Side = Literal["source", "target"]  # whose samples; pretraining's own data are its source


class TwoViews(Term):
    """A loss of the features of two views; no label is looked at.

    The batch's own augmentation (`data.augment`, `pretrain.augment`) makes the first view. Whatever a subclass puts
    behind the features, such as a projector, is left behind after training.
    """

    views = ("weak",)
    modalities = ("image", "audio")

    def __init__(self, weight: float, domain: Side) -> None:
        super().__init__()
        self.weight = weight
        self.domains = (domain,)

    def prepare(self, context: TermContext) -> None:
        """Keep the backbone at hand."""
        self._backbone = (context.backbone,)  # in a tuple, so that it is no part of this module

    @property
    def backbone(self) -> Backbone:
        """The one that trains."""
        return self._backbone[0]

    def forward(self, step: TrainStep) -> Tensor:
        """The loss of the step's samples."""
        (domain,) = self.domains
        return self.loss(step.features[domain], self.backbone(step.batch[domain].views["weak"]))

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss of the features `(B, D)` of both views."""
        raise NotImplementedError


def perceptron(sizes: tuple[int, ...], normalised: bool) -> nn.Sequential:
    """Linear layers of these sizes with ReLU between them, and BatchNorm before each ReLU where `normalised`."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        if layers:
            layers += [nn.BatchNorm1d(inputs), nn.ReLU()] if normalised else [nn.ReLU()]
        layers.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*layers)
