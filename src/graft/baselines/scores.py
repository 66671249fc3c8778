"""Baselines beside a run: fitted and scored on its splits, labels and metrics, and kept for jobs that share them."""

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torchmetrics import MetricCollection

from graft.backbones.base import Backbone
from graft.baselines.alignment import ALIGNERS, Aligned
from graft.baselines.base import Model, Predicted, Rows
from graft.baselines.boosting import GradientBoosting
from graft.baselines.covariate_shift import ImportanceWeighted
from graft.baselines.label_shift import ESTIMATORS, LabelShift
from graft.baselines.linear import Linear
from graft.baselines.majority import Majority
from graft.baselines.neighbours import Neighbours
from graft.baselines.plan import Planned, planned
from graft.baselines.representations import FrozenFeatures, Named, TreeColumns
from graft.baselines.texts import text_scores
from graft.cache.disk import DiskCache, NoRoom
from graft.cache.key import cache_key, code_used, numerics
from graft.data.module import TransferDataModule
from graft.data.samples import Split
from graft.data.stream import whole
from graft.tasks.base import Task

MAX_ROWS = 10_000  # training rows of a domain; boosting takes all
MAX_SOURCE = 3_000  # of a source, where a backbone has to see each
ENTRY, BYTES = "baseline.json", 10_000  # in the cache


def scores(
    data: TransferDataModule,
    task: Task,
    backbone: Backbone | None,
    cache: DiskCache,
    names: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """What each baseline reads on the target's validation and test splits, by its key; see graft.baselines.plan.

    `backbone` is given where it is pretrained, on the device where its features are to be computed. Each is
    `{title, fitted_on, chosen, labels, metrics, seconds}`, computed once for all runs with the same data and weights;
    of label shift also `priors` and, where they differ, a `note`.
    """
    if task.writes:
        return text_scores(data, task, names)
    found = {}
    with torch.random.fork_rng(devices=()), threadpool_limits(torch.get_num_threads()):
        for one in planned(names, data, backbone, cache):
            found[one.key] = kept(one, data, task, cache)
    return found


def kept(one: Planned, data: TransferDataModule, task: Task, cache: DiskCache) -> dict[str, Any]:
    """A baseline's entry from the cache, which it is written to if it is not there."""
    computed: list[dict[str, Any]] = []

    def make(folder: Path) -> None:
        computed.append(score(one, data, task))
        (folder / ENTRY).write_text(json.dumps(computed[0]))

    try:
        read = lambda folder: json.loads((folder / ENTRY).read_text())  # noqa: E731
        return cache.get(key_of(one, data, task), lambda: BYTES, make, read)
    except NoRoom:
        return computed[0] if computed else score(one, data, task)


def key_of(one: Planned, data: TransferDataModule, task: Task) -> str:
    """A hash of all that decides what a baseline reads."""
    splits = [*(data.domains[domain].train.labelled for domain in one.domains), *held_out(data)]
    return cache_key(
        {
            "baseline": one.key,
            "sees": one.representation.key() if one.representation else "",
            "splits": [split.fingerprint for split in splits],
            "inputs": [part.split.fingerprint for part in unlabelled(one, data)],
            "labels": [digest(split.labels) for split in splits],
            "task": [type(task).__name__, task.main_metric, data.num_outputs("target", task)],
            "classes": data.classes("target"),
            "code": code_used(__name__, task, *(part for domain in one.domains for part in data.parts(domain))),
            "numerics": numerics(),
        }
    )


def held_out(data: TransferDataModule) -> list[Split]:
    """The target's validation and test splits."""
    return [data.domains["target"].val, data.domains["target"].test]


def digest(labels: Tensor | None) -> str:
    """A hash of some labels."""
    return "" if labels is None else hashlib.sha256(labels.cpu().contiguous().numpy().tobytes()).hexdigest()


def score(one: Planned, data: TransferDataModule, task: Task) -> dict[str, Any]:
    """Fit a baseline and score it."""
    started = time.perf_counter()
    classes = data.classes("target")
    labelled = {domain: data.domains[domain].train.labelled for domain in one.domains}
    train = [Named(domain, "train", capped(split, most(one, domain))) for domain, split in labelled.items()]
    inputs = unlabelled(one, data)
    val, test = (Named("target", name, split) for name, split in zip(("val", "test"), held_out(data), strict=True))
    y = np.concatenate([labels_of(part) for part in train])
    if one.representation is None:
        x, x_val, x_test = (np.zeros((size, 1)) for size in (len(y), len(val.split), len(test.split)))
        x_inputs = []
    else:
        x, x_val, x_test, *x_inputs = one.representation.rows(train, [val, test, *inputs])
    model = model_of(one, *x_inputs)
    chosen = model.fit(x, y, len(classes) if classes else None)
    metrics: dict[str, float] = {}
    for stage, rows, part in (("val", x_val, val), ("test", x_test, test)):
        if len(part.split):
            metrics |= measured(task, data.num_outputs("target", task), model.predict(rows), part, stage)
    more = model.record(classes) if isinstance(model, LabelShift) and classes else {}
    return more | {
        "title": one.title(classes is None),
        "fitted_on": fitted_on(train, inputs, data),
        "chosen": chosen,
        "labels": {part.domain: len(part.split) for part in train},
        "metrics": metrics,
        "seconds": time.perf_counter() - started,
    }


def unlabelled(one: Planned, data: TransferDataModule) -> list[Named]:
    """The target's training inputs without their labels, where a baseline adapts to them."""
    if one.adaptation is None:
        return []
    train = capped(whole(data.domains["target"].train), most(one, "target"))
    return [Named("target", "train", replace(train, labels=None))]


def most(one: Planned, domain: str) -> int:
    """How many training rows of a domain a baseline takes."""
    if one.method == "boosting":
        return sys.maxsize
    return MAX_SOURCE if domain == "source" and isinstance(one.representation, FrozenFeatures) else MAX_ROWS


def capped(split: Split, size: int) -> Split:
    """A split, or so many of its samples at random where it has more."""
    if len(split) <= size:
        return split
    return split.subset(torch.from_numpy(np.sort(np.random.default_rng(0).permutation(len(split))[:size])))


def labels_of(part: Named) -> np.ndarray:
    """A split's labels as a baseline takes them."""
    labels = part.split.labels
    assert labels is not None  # a baseline without them is not planned
    return labels.cpu().numpy()


def model_of(one: Planned, inputs: Rows = None) -> Model:
    """The method of a planned baseline; `inputs` are the target's rows that it adapts to."""
    if one.adaptation in ALIGNERS:
        return Aligned(one.adaptation, inputs)
    if one.adaptation in ESTIMATORS:
        return LabelShift(one.adaptation, inputs)
    if one.adaptation == "importance_weighted":
        return ImportanceWeighted(inputs)
    if isinstance(one.representation, TreeColumns):
        return GradientBoosting(one.representation.categories)
    if one.method == "neighbours" and one.representation:
        return Neighbours(one.representation.metric)
    return Linear() if one.method == "linear" else Majority()


def measured(task: Task, num_outputs: int, predicted: Predicted, part: Named, stage: str) -> dict[str, float]:
    """The run's own metrics of some predictions, in this process alone."""
    predictions = torch.from_numpy(np.array(predicted, dtype=np.float32))
    if num_outputs == 1 and predictions.shape[1:] == (2,):
        predictions = predictions[:, 1]  # of yes or no
    assert part.split.labels is not None
    collections: list[MetricCollection] = [task.metrics(num_outputs)]
    collections += [task.test_metrics(num_outputs)] if stage == "test" else []
    found: dict[str, float] = {}
    for metrics in collections:
        for metric in metrics.values():
            metric.distributed_available_fn = lambda: False  # no other process has scores to add
        if metrics:
            metrics.update(predictions, task.targets(part.split.labels))
            scalars = {name: value for name, value in metrics.compute().items() if value.numel() == 1}
            found |= {f"{stage}/target/{name}": float(value) for name, value in scalars.items()}
    return found


def fitted_on(train: Sequence[Named], inputs: Sequence[Named], data: TransferDataModule) -> str:
    """`455 source and 10 target labels` or `455 source labels, 90 target inputs`; of how many where that is not all."""

    def counted(parts: Sequence[Named], labelled: bool) -> str:
        words = []
        for part in parts:
            split = data.domains[part.domain].train
            whole = len(split.labelled if labelled else split)
            of = f" of {whole:,}" if len(part.split) < whole else ""
            words.append(f"{len(part.split):,}{of} {part.domain}")
        return " and ".join(words)

    labels = f"{counted(train, labelled=True)} labels"
    return f"{labels}, {counted(inputs, labelled=False)} inputs" if inputs else labels
