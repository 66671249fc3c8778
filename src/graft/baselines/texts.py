"""What anybody would write first: the beginning of the text, or any label of the training texts."""

import time
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch

from graft.backbones.vocabulary import words_of
from graft.data.module import TransferDataModule
from graft.data.samples import Split, generator
from graft.data.target_texts import TargetTexts
from graft.errors import GraftError
from graft.tasks.base import Task

TextName = Literal["lead", "random_text"]
TITLES = {"lead": "first {length} words of the text", "random_text": "a random training label"}


def text_names(wanted: Sequence[str] | str) -> list[str]:
    """The names of a config's word or list; GraftError for one that writes no text."""
    known = get_args(TextName)
    if wanted == "auto":
        return [*known]
    if unknown := [name for name in wanted if name not in known]:
        raise GraftError(
            f"baselines: {unknown[0]} writes no text. Set baselines=auto, or a list of {' and '.join(known)}."
        )
    return list(dict.fromkeys(wanted))


def text_scores(data: TransferDataModule, task: Task, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What each reads on the target's validation and test splits, as graft.baselines.scores gives it."""
    target = data.domains["target"]
    assert target.train.labels is not None
    labels: list[str] = target.train.labels.tolist()
    length = int(torch.tensor([len(words_of(label)) for label in labels]).median())
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        started = time.perf_counter()
        metrics: dict[str, float] = {}
        for stage, split in (("val", target.val), ("test", target.test)):
            if len(split):
                metrics |= measured(task, written(name, split, labels, length), split.labels, stage)
        found[name] = {
            "title": TITLES[name].format(length=length),
            "fitted_on": f"{len(labels):,} target labels",
            "chosen": f"the median length of the training labels, {length} words" if name == "lead" else "",
            "labels": {"target": len(labels)},
            "metrics": metrics,
            "seconds": time.perf_counter() - started,
        }
    return found


def written(name: str, split: Split, labels: Sequence[str], length: int) -> TargetTexts:
    """A baseline's texts for a split; those drawn at random are a function of the split's samples."""
    if name == "lead":
        return TargetTexts([" ".join(words_of(text)[:length]) for text in iterated(split)])
    drawn = torch.randint(len(labels), (len(split),), generator=generator("random_text", split.fingerprint))
    return TargetTexts([labels[index] for index in drawn.tolist()])


def iterated(split: Split) -> list[str]:
    """The texts of a split."""
    inputs: Any = split.inputs
    return [inputs[index] for index in range(len(split))]


def measured(task: Task, texts: TargetTexts, labels: Any, stage: str) -> dict[str, float]:
    """The run's own metrics of some texts, in this process alone; those of a decoder's scores are left out."""
    metrics = task.metrics(0)
    for metric in metrics.values():
        metric.distributed_available_fn = lambda: False  # no other process has texts to add
    metrics.update(texts, labels)
    values = {name: float(value) for name, value in metrics.compute().items()}
    return {f"{stage}/target/{name}": value for name, value in values.items() if value == value}
