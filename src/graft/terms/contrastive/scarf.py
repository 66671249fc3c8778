"""SCARF: a row of a table and the same row corrupted are alike (Bahri, Jiang, Tay and Metzler, ICLR 2022)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.config.types import Count, Fraction, NonNegative, Positive
from graft.inputs.base import Fields
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.pretext.two_views import Side, perceptron
from graft.terms.processes import gathered_to_learn
from graft.terms.requirements import check_several


def corrupted(rows: Fields, fraction: float) -> Fields:
    """Rows with `fraction` of each one's columns (rounded down, one at least) taken from other rows of the batch.

    Each value comes from a row of its own, so that it follows its column's distribution and no other column's value.
    """
    size, numbers, codes = len(rows), rows["numbers"].shape[1], rows["codes"].shape[1]
    number = max(1, math.floor(fraction * (numbers + codes)))
    ranks = torch.rand(size, numbers + codes, device=rows.device).argsort(dim=1).argsort(dim=1)
    donors = torch.randint(size, (size, numbers + codes), device=rows.device)
    places = {"numbers": slice(numbers), "missing": slice(numbers), "codes": slice(numbers, None)}

    def mixed(name: str) -> Tensor:
        values, place = rows[name], places[name]
        return torch.where(ranks[:, place] < number, values.gather(0, donors[:, place]), values)

    return Fields({name: mixed(name) for name in rows.tensors})


def contrast_of_rows(rows: Tensor, changed: Tensor, temperature: float) -> Tensor:
    """InfoNCE of projections `(B, P)`: each row's own corrupted version among those of all B rows."""
    similarities = F.normalize(rows, dim=1) @ F.normalize(changed, dim=1).T / temperature
    return F.cross_entropy(similarities, torch.arange(len(rows), device=rows.device))


class SCARF(Term):
    """InfoNCE of a projector's outputs for the rows of a batch and for the same rows corrupted; no label is looked at.

    A corrupted value is drawn from its column in the batch, which stands for the training rows. The projector has two
    layers with ReLU between, as in the paper, and is left behind after training. Several processes contrast the rows of
    all. Raises GraftError for batches of one.
    """

    modalities = ("table",)

    def __init__(
        self,
        weight: NonNegative = 1.0,
        domain: Side = "source",
        corruption: Fraction = 0.6,
        temperature: Positive = 1.0,
        projection_size: Count = 128,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.domains = (domain,)
        self.corruption = corruption
        self.temperature = temperature
        self.projection_size = projection_size

    def prepare(self, context: TermContext) -> None:
        """Make the projector."""
        size = context.backbone.feature_size
        self.projector = perceptron((size, size, self.projection_size), normalised=False)
        self._backbone = (context.backbone,)  # in a tuple, so that it is no part of this module

    def forward(self, step: TrainStep) -> Tensor:
        """The contrast of the step's rows."""
        (domain,) = self.domains
        features = step.features[domain]
        check_several([features], "scarf")
        rows = step.inputs[domain]
        assert isinstance(rows, Fields)
        changed = self._backbone[0](corrupted(rows, self.corruption))
        own, changed = gathered_to_learn(self.projector(features)), gathered_to_learn(self.projector(changed))
        return contrast_of_rows(own, changed, self.temperature)
