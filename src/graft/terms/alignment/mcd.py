"""Maximum Classifier Discrepancy: two heads find where the target is far from the source (Saito et al., CVPR 2018)."""

import copy
import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from graft.config.types import Count, NonNegative
from graft.heads.base import BOTTLENECK, classifier_of, has_bottleneck
from graft.terms.base import Term, TermContext, TrainStep, Update
from graft.terms.requirements import check_at_least, check_shared_classes


def discrepancy(logits: Tensor, other: Tensor) -> Tensor:
    """Mean absolute difference of two heads' class probabilities; logits `(B, K)` each."""
    return (logits.softmax(dim=1) - other.softmax(dim=1)).abs().mean()


class MCD(Term):
    """The second head's loss on the source, and on the same batch 1 + k further steps.

    The paper's steps: A, both heads and the backbone learn the source (the objective and this term's value, so that
    `objective.alpha=1 term.mcd.weight=1` is the paper's); B, the heads learn the source and to disagree on the target;
    C, k times, the backbone learns to make them agree. The run's own head is the one that is tested. A bottleneck is
    part of the paper's generator: it learns with the backbone in C, and the second head is a second classifier on it.
    Raises GraftError without classes or with a head for each domain.
    """

    needs_multiclass = True
    domains = ("source", "target")
    needs_source_labels = True
    needs_inputs = False
    aligns = True

    def __init__(self, weight: NonNegative = 1.0, k: Count = 4) -> None:
        super().__init__()
        check_at_least("mcd.weight", weight, 0)
        check_at_least("mcd.k", k, 1)
        self.weight = weight
        self.k = k

    def check(self, context: TermContext) -> None:
        """GraftError without classes or with a head for each domain."""
        check_shared_classes(context, "mcd")

    def prepare(self, context: TermContext) -> None:
        """Make the second head: one like the first, with random weights of its own."""
        self.check(context)
        self.head = new_classifier(context.target_head)
        self.generator = ("backbone", BOTTLENECK) if has_bottleneck(context.target_head) else ("backbone",)

    def forward(self, step: TrainStep) -> Tensor:
        """Cross entropy of the second head on the source (A)."""
        return F.cross_entropy(self.head(step.embedded["source"]), labels_of(step))

    def updates(self) -> Sequence[Update]:
        """Heads apart (B), then the generator so that they meet (C)."""
        return (Update(self.apart, ("head", "term")), Update(self.together, self.generator, self.k))

    def apart(self, step: TrainStep) -> Tensor:
        """Both heads' cross entropy on the source less their discrepancy on the target."""
        loss = F.cross_entropy(step.logits["source"], labels_of(step)) + self(step)
        return loss - self.together(step)

    def together(self, step: TrainStep) -> Tensor:
        """The heads' discrepancy on the target."""
        return discrepancy(step.logits["target"], self.head(step.embedded["target"]))


def labels_of(step: TrainStep) -> Tensor:
    """The source's classes `(B,)`, or `(B, K)` after mixup."""
    labels = step.labels["source"]
    assert labels is not None  # only a target can be unlabelled
    return labels


def new_classifier(head: nn.Module) -> nn.Module:
    """A second classifier like a head's own, with random weights of its own, in training mode."""
    classifier = copy.deepcopy(classifier_of(head)).requires_grad_(True).train()
    for module in classifier.modules():
        reset(module)
    return classifier


def reset(module: nn.Module) -> None:
    """Give a layer new random weights, where it has some."""
    if callable(draw := getattr(module, "reset_parameters", None)):
        draw()
    if parametrize.is_parametrized(module, "weight"):  # computed from others, so that drawing it changes nothing
        weight = torch.empty_like(cast(Tensor, module.weight))
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))  # as a linear layer draws it
        module.weight = weight
