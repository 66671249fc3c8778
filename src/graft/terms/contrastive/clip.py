"""CLIP's contrast: a sample and the text that belongs to it are near each other (Radford et al., ICML 2021)."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.config.types import NonNegative
from graft.errors import GraftError
from graft.heads.class_names import ClassNamesHead
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.pretext.two_views import Side
from graft.terms.processes import gathered, gathered_to_learn
from graft.terms.requirements import check_several


def contrast_of_pairs(samples: Tensor, texts: Tensor, scale: Tensor | float, labels: Tensor) -> Tensor:
    """InfoNCE of vectors `(B, E)` of length 1, from samples to texts and back, by half.

    All pairs of one label `(B,)` belong together and share the target equally (Yang et al., CVPR 2022): where no label
    is there twice, this is CLIP's loss.
    """
    similarities = scale * samples @ texts.T
    same = (labels[:, None] == labels).to(similarities.dtype)
    targets = same / same.sum(dim=1, keepdim=True)  # symmetric: a label's pairs have all the same number
    return (F.cross_entropy(similarities, targets) + F.cross_entropy(similarities.T, targets)) / 2


class CLIP(Term):
    """The contrast of a batch's features with the names of its classes, by the run's `head=class_names`.

    The head's projection, tower and scale learn by it, so that no loss of labels has to. Several processes contrast the
    samples of all of them.
    """

    needs_names = True
    needs_labels = True
    needs_hard_labels = True
    needs_multiclass = True
    needs_inputs = False
    teaches_head = True
    domains = ("target",)

    def __init__(self, weight: NonNegative = 1.0, domain: Side = "target") -> None:
        super().__init__()
        self.weight = weight
        self.domains = self.taught_heads = (domain,)

    def check(self, context: TermContext) -> None:
        """GraftError where the domain's head has no vectors of names."""
        if not isinstance(self._head_in(context), ClassNamesHead):
            raise GraftError("term.clip compares samples with the names of their classes. Set head=class_names.")

    def prepare(self, context: TermContext) -> None:
        """Remember the head."""
        self.check(context)
        self._head = (cast(ClassNamesHead, self._head_in(context)),)  # in a tuple: it is no part of this module

    def _head_in(self, context: TermContext) -> torch.nn.Module:
        return context.heads.get(self.domains[0], context.target_head)

    def forward(self, step: TrainStep) -> Tensor:
        """The contrast of the step's pairs."""
        (domain,), (head,) = self.domains, self._head
        features, labels = step.features[domain], step.labels[domain]
        assert labels is not None  # see needs_labels
        samples, labels = gathered_to_learn(head.embed(features)), gathered(labels)
        check_several([samples], "clip")
        present, place = labels.unique(return_inverse=True)
        texts = head.vectors(present.tolist())[place]
        return contrast_of_pairs(samples, texts, head.scale, labels)
