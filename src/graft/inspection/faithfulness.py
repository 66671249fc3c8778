"""Whether an attribution can be believed: what its units do when they are removed, and what random weights change."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from graft.backbones.base import Backbone
from graft.inspection.subject import Question, Subject

if TYPE_CHECKING:
    from graft.model.model import Model

DELETION_STEPS = 16
RANDOM_ORDERS = 8
SAME = 0.5  # rank correlation from which on an attribution counts as unchanged by random weights
ALL = "all weights"
LEVELS = 4  # of the cascade of randomised parts that are looked at


@dataclass(frozen=True)
class Verdict:
    """Deletion areas of an attribution's order and of random ones, and its similarity by what is randomised."""

    area: float
    random_area: float
    similarity: Mapping[str, float]

    @property
    def withheld(self) -> str:
        """Why the attribution is not shown; empty where it is."""
        reasons = []
        if not self.area < self.random_area:
            reasons.append(f"removing what it marks does no more than chance ({self.area:.2f}, {self.random_area:.2f})")
        if abs(self.last) > SAME:  # or turn its sign, which is as little of what was learned
            reasons.append(f"random weights hardly change it (rank correlation {self.last:.2f})")
        return " and ".join(reasons)

    @property
    def last(self) -> float:
        """Similarity with the attribution of a network whose weights are all random."""
        return self.similarity[ALL]


@torch.no_grad()
def deletion_area(subject: Subject, question: Question, model: "Model", order: Tensor) -> float:
    """Mean of what is left of the prediction while the units `(count,)` of an order are removed, from none to all."""
    steps = min(DELETION_STEPS, subject.count)
    numbers = torch.linspace(0, subject.count, steps + 1).round().long()
    ranks = torch.empty(subject.count, dtype=torch.int64)
    ranks[order] = torch.arange(subject.count)
    logits = subject.logits(model.backbone, model.head, subject.without(ranks < numbers[:, None]))
    left = question.support(logits).double()
    return float(torch.trapezoid(left, numbers.double()) / subject.count)


def random_area(subject: Subject, question: Question, model: "Model") -> float:
    """The same of random orders, on average."""
    random = torch.Generator().manual_seed(0)
    orders = [torch.randperm(subject.count, generator=random) for _ in range(RANDOM_ORDERS)]
    return float(np.mean([deletion_area(subject, question, model, order) for order in orders]))


def randomised(model: "Model") -> Iterator[tuple[str, Backbone, nn.Module]]:
    """What is random, and a copy of the network with those weights in random order: the head, then the last stages.

    Each is the one before with more of it randomised, so that it is used before the next is asked for.
    """
    backbone, head = copy.deepcopy(model.backbone), copy.deepcopy(model.head)
    random = torch.Generator().manual_seed(0)
    shuffle(head.parameters(), random)
    yield "head", backbone, head
    stages = [stage.name for stage in reversed(backbone.stages)]
    shown = {round(number * len(stages) / (LEVELS - 1)) for number in range(1, LEVELS)}
    for number, stage in enumerate(stages, start=1):
        shuffle(backbone.stage_parameters(stage).values(), random)
        if number in shown:
            yield ALL if number == len(stages) else f"head and {number} of {len(stages)} stages", backbone, head


@torch.no_grad()
def shuffle(parameters: Iterable[Tensor], random: torch.Generator) -> None:
    """Put the values of each tensor in random order: their sizes stay, and what was learned is gone."""
    for tensor in parameters:
        tensor.copy_(tensor.flatten()[torch.randperm(tensor.numel(), generator=random)].view_as(tensor))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's, `(n,)` each; 0 where one is constant."""
    ranks = np.stack([average_ranks(values) for values in (first, second)])
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    sizes = np.sqrt((centred**2).sum(axis=1))
    return float(centred[0] @ centred[1] / sizes.prod()) if sizes.all() else 0.0


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks `(n,)`, equal values sharing the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]
