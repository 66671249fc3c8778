"""What an exported file is checked, calibrated and scored on: a run's own samples, or made-up ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graft.data.boxes import by_padded_size
from graft.data.samples import Split
from graft.errors import GraftError
from graft.export.candidates import boxes_of
from graft.export.deployed import Deployed
from graft.export.preprocessing import SHORTEST
from graft.inspection.opened import open_run
from graft.report.statistics import wilson
from graft.runs import record
from graft.runs.folder import CONFIG, RESULTS

BATCH = 32
CHECKED = 64  # test samples that every format is compared on
CALIBRATION = 128  # validation samples that decide the ranges of 8-bit activations


@dataclass(frozen=True)
class Batch:
    """Arrays by the names of a deployed network's inputs, and what the run's own preprocessing and network answer."""

    raw: dict[str, np.ndarray]
    labels: Tensor | None = None
    expected: np.ndarray | None = None  # where it was asked for: that costs a forward pass


def splits_of(folder: Path, allow: Sequence[str]) -> tuple[dict[str, Split], str]:
    """Validation and test split of the run around a model folder; empty where its data are gone, with the reason."""
    run = folder.parent
    if not (run / CONFIG).is_file() or not (run / RESULTS).is_file():
        return {}, "the model stands alone, without its run"
    try:
        target = open_run(run, record.read(run), allow).data.domains["target"]
    except GraftError as error:
        return {}, str(error)
    return {"val": target.val, "test": target.test}, ""


@torch.inference_mode()
def batches_of(deployed: Deployed, split: Split, limit: int | None = None, answered: bool = False) -> list[Batch]:
    """Evenly spaced samples of a split, at most so many; `answered` by the path that the run itself tested on.

    Images with boxes are batched by their padded size, as that decides what is found in them.
    """
    indices = torch.arange(len(split))
    if limit is not None and limit < len(split):
        indices = torch.arange(limit) * len(split) // limit
    chosen = split.subset(indices)
    transform = deployed.transform
    prepared = transform.prepare(chosen, None)
    found = []
    one_size = deployed.task.label_kind == "boxes"
    for all_places in torch.arange(len(chosen)).split(BATCH):
        whole = prepared[all_places]
        for numbers in of_one_size(whole) if one_size else [torch.arange(len(all_places))]:
            samples: Any = [whole[number] for number in numbers.tolist()] if one_size else whole
            labels = None if chosen.labels is None else chosen.labels[all_places[numbers]]
            expected = deployed.answers(transform.collate(samples)).numpy() if answered else None
            found.append(Batch(arrays(deployed, deployed.preprocessing.raw(samples)), labels, expected))
    return found


def of_one_size(images: Sequence[Tensor]) -> Iterable[Tensor]:
    """Numbers of the images of each padded size: the run's own test looks at an image as if it were alone."""
    return by_padded_size(torch.tensor([image.shape[-2:] for image in images])).values()


@torch.inference_mode()
def made_up(deployed: Deployed) -> list[Batch]:
    """Two batches of noise, of different sizes."""
    both = (deployed.preprocessing.example(samples) for samples in (SHORTEST, SHORTEST + 1))
    return [Batch(arrays(deployed, raw), expected=deployed(*raw).numpy()) for raw in both]


def arrays(deployed: Deployed, raw: Sequence[Tensor]) -> dict[str, np.ndarray]:
    """Tensors as arrays by name."""
    return {one.name: values.numpy() for one, values in zip(deployed.inputs, raw, strict=True)}


def score(deployed: Deployed, batches: Sequence[Batch], outputs: Sequence[np.ndarray]) -> dict[str, Any] | None:
    """The task's main metric of outputs against the batches' labels, with Wilson's interval of an accuracy.

    None where there are no labels, and for a metric that needs more than these outputs.
    """
    task, name = deployed.task, deployed.task.main_metric
    if any(batch.labels is None for batch in batches):
        return None
    if task.label_kind == "boxes":
        return score_boxes(deployed, batches, outputs)
    labels = torch.cat([batch.labels for batch in batches if batch.labels is not None])
    values = torch.from_numpy(np.concatenate(outputs))
    predictions = values[:, 1] if task.name == "binary" else values
    metrics = task.metrics(values.shape[-1] if values.ndim > 1 else 1)
    if name not in metrics:
        return None
    metrics.update(predictions, task.targets(labels))
    return scored(name, float(metrics.compute()[name]), len(labels))


def score_boxes(deployed: Deployed, batches: Sequence[Batch], outputs: Sequence[np.ndarray]) -> dict[str, Any]:
    """The main metric of candidates against the batches' boxes, in pixels of the images as they were read."""
    head: Any = deployed.head
    metrics = deployed.task.metrics(len(outputs[0][0, 0]) - 4)
    for batch, output in zip(batches, outputs, strict=True):
        labels: Any = batch.labels
        padded = torch.tensor(batch.raw["image"].shape[1:3]).repeat(len(output), 1)
        found = boxes_of(torch.from_numpy(output), padded, head.nms_iou)
        sizes = torch.from_numpy(batch.raw["size"])
        metrics.update(found.restored(like=replace(labels, sizes=sizes)), labels)
    name = deployed.task.main_metric
    return scored(name, float(metrics.compute()[name]), sum(map(len, outputs)))


def scored(metric: str, value: float, n: int) -> dict[str, Any]:
    """A metric of n test samples, with Wilson's interval of an accuracy."""
    interval = [*wilson(value * n, n)] if metric == "acc" and n else None
    return {"metric": metric, "value": value, "n": n, "interval": interval}


def score_of_run(run: Path) -> dict[str, Any] | None:
    """What a run's record says of its test; None where there is none."""
    if not (run / RESULTS).is_file():
        return None
    results = record.read(run)
    found, n = results.get("score"), results.get("data", {}).get("target", {}).get("test")
    if not found or found.get("value") is None or not n:
        return None
    return scored(str(found["metric"]).rpartition("/")[2], float(found["value"]), int(n))
