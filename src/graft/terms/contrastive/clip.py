"""CLIP's contrast: a sample and the text that belongs to it are near each other (Radford et al., ICML 2021)."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.config.types import NonNegative
from graft.data.captions import captions_of
from graft.errors import GraftError
from graft.heads.class_names import ClassNamesHead
from graft.inputs.base import DomainBatch
from graft.notes import say_once
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.pretext.two_views import Side
from graft.terms.processes import gathered, gathered_to_learn
from graft.terms.requirements import check_several

MANY = 2_000  # texts; the vectors of fewer take no time worth a line


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

    With a `text`, a column of the domain's file, it is with the text of each sample, as CLIP has it, and no label is
    looked at: equal texts belong together. The head's projection, tower and scale learn by it, so that no loss of
    labels has to. Vectors of a tower that stays as it is are computed once. Several processes contrast the samples of
    all of them.
    """

    needs_names = True
    needs_labels = True
    needs_source_labels = True
    instead_of_labels = "text"
    needs_hard_labels = True
    needs_multiclass = True
    needs_inputs = False
    teaches_head = True
    domains = ("target",)
    numbers: Tensor  # (N,) of each training sample's text
    text_vectors: Tensor | None  # (U, E) of the texts by their numbers; None where the tower learns

    def __init__(self, weight: NonNegative = 1.0, domain: Side = "target", text: str | None = None) -> None:
        super().__init__()
        self.weight = weight
        self.domains = self.taught_heads = (domain,)
        self.text = text

    def check(self, context: TermContext) -> None:
        """GraftError where the domain's head has no vectors of names, or its samples no texts."""
        if not isinstance(self._head_in(context), ClassNamesHead):
            raise GraftError("term.clip compares samples with the names of their classes. Set head=class_names.")
        if self.text is not None:
            for split in ("train", "test"):  # the latter's are for the recall at the end
                self._texts_in(context, split)

    def prepare(self, context: TermContext) -> None:
        """Remember the head; number the texts, the same on every process, and ask a tower that does not learn."""
        self.check(context)
        head = cast(ClassNamesHead, self._head_in(context))
        self._head = (head,)  # in a tuple: it is no part of this module
        if self.text is None:
            return
        texts = self._texts_in(context, "train")
        self._texts = list(dict.fromkeys(texts))
        number = {text: place for place, text in enumerate(self._texts)}
        self.register_buffer("numbers", torch.tensor([number[text] for text in texts]), persistent=False)
        vectors = None
        if head.tower is None:
            if len(self._texts) >= MANY:
                say_once(f"Computing the vectors of {len(self._texts):,} texts")
            with torch.no_grad():
                vectors = head.vectors_of(self._texts)
        self.register_buffer("text_vectors", vectors, persistent=False)

    def _head_in(self, context: TermContext) -> torch.nn.Module:
        return context.heads.get(self.domains[0], context.target_head)

    def _texts_in(self, context: TermContext, split: str) -> list[str]:
        (side,) = self.domains
        return captions_of(context.domains[side], side, split, str(self.text), f"{context.key}.clip.text")

    def forward(self, step: TrainStep) -> Tensor:
        """The contrast of the step's pairs."""
        (domain,), (head,) = self.domains, self._head
        labels = gathered(self._labels(step.batch[domain]))
        samples = gathered_to_learn(head.embed(step.features[domain]))
        check_several([samples], "clip")
        present, place = labels.unique(return_inverse=True)
        return contrast_of_pairs(samples, self._vectors(present, head)[place], head.scale, labels)

    def _labels(self, batch: DomainBatch) -> Tensor:
        """What each sample `(B,)` belongs with: the number of its text, or its class."""
        if self.text is None:
            assert batch.labels is not None  # see needs_labels
            return batch.labels
        assert batch.indices is not None  # as loaders give it
        return self.numbers[batch.indices.to(self.numbers.device)]

    def _vectors(self, present: Tensor, head: ClassNamesHead) -> Tensor:
        """Vectors `(P, E)` of the texts, or of the classes, of these numbers."""
        if self.text is None:
            return head.vectors(present.tolist())
        if self.text_vectors is not None:
            return self.text_vectors[present]
        return head.vectors_of([self._texts[number] for number in present.tolist()])
