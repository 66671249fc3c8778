"""What a network says of some samples, as it is returned, printed and kept."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:  # reading a run's predictions needs no torch
    from torch import Tensor

    from graft.model.explain import Explanation
    from graft.model.neighbours import Neighbour
    from graft.tasks.base import Task

CLASSES = "classes"  # where the file's schema holds the class names, as JSON
SLICE = "slice "  # a column's name begins so that holds what samples are sliced by


@dataclass(frozen=True)
class Predictions:
    """Of N samples: a class name, several of them, a number or boxes each, and the probability `(N, K)` of every class.

    `probabilities` and `classes` are None for numbers, `confidence` `(N,)` also for several labels. `scores` `(N,)` by
    name, and whether a sample is `unusual` `(N,)` by them, are those of graft.model.unusual. `nearest` and
    `explanations` are there where they were asked for.
    """

    labels: tuple[Any, ...]
    probabilities: np.ndarray | None
    classes: tuple[str, ...] | None
    confidence: np.ndarray | None = None  # probability of the label after calibration
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    unusual: np.ndarray | None = None
    nearest: "tuple[tuple[Neighbour, ...], ...] | None" = None
    explanations: "tuple[Explanation, ...] | None" = None

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """A mapping for each sample: `prediction`, and of the other fields those that are there, in the singular."""
        for index, label in enumerate(self.labels):
            found: dict[str, Any] = {"prediction": label}
            if self.confidence is not None:
                found["confidence"] = float(self.confidence[index])
            if self.unusual is not None:
                found["unusual"] = bool(self.unusual[index])
            found |= {name: float(values[index]) for name, values in self.scores.items()}
            if self.nearest is not None:
                found["nearest"] = self.nearest[index]
            if self.explanations is not None:
                found["explanation"] = self.explanations[index]
            if self.probabilities is not None and self.classes is not None:
                found["probabilities"] = dict(zip(self.classes, self.probabilities[index].tolist(), strict=True))
            yield found


def predictions_of(task: "Task", values: Any, classes: Sequence[str] | None) -> Predictions:
    """What a task's predictions `(N, ...)`, as its metrics take them, say in the words of the data."""
    names = None if classes is None else tuple(classes)
    probabilities = task.probabilities(values)
    found = None if probabilities is None else probabilities.float().numpy()
    return Predictions(words_of(task.decide(values), names and task.named(names)), found, names)


def text_of(label: Any) -> str:
    """A label for people: several labels with bars between them, a number to four digits."""
    if isinstance(label, tuple | list):
        return "|".join(map(str, label))
    return f"{label:.4g}" if isinstance(label, float) else str(label)


def words_of(labels: Any, classes: Sequence[str] | None) -> tuple[Any, ...]:
    """Labels as words: a class name for each of `(N,)`, those that are 1 for each of `(N, K)`, numbers as they are.

    Texts are as they are. Boxes of an image are a list of mappings: `class`, `box` as x0, y0, x1, y1 in pixels, and
    `score` of predictions.
    """
    if hasattr(labels, "texts"):
        return tuple(labels.texts)
    if hasattr(labels, "boxes"):
        return tuple(boxes_in_words(one, classes or ()) for one in labels.dictionaries())
    if classes is None:
        return tuple(labels.tolist())
    if labels.ndim == 1:
        return tuple(classes[label] for label in labels.tolist())
    return tuple(tuple(name for name, yes in zip(classes, row, strict=True) if yes) for row in (labels > 0.5).tolist())


def boxes_in_words(found: "Mapping[str, Tensor]", classes: Sequence[str]) -> list[dict[str, Any]]:
    """An image's boxes as plain values, coordinates to a hundredth of a pixel."""
    boxes = [[round(value, 2) for value in box] for box in found["boxes"].tolist()]
    words = [{"class": classes[label], "box": box} for label, box in zip(found["labels"].tolist(), boxes, strict=True)]
    if "scores" not in found:
        return words
    return [one | {"score": round(score, 4)} for one, score in zip(words, found["scores"].tolist(), strict=True)]


@dataclass(frozen=True)
class TestPredictions:
    """What a run said of a domain's test split: the samples' places in it, what they are called and their labels."""

    domain: str
    indices: "Tensor"  # (N,)
    samples: Sequence[str]
    labels: Sequence[Any]
    predictions: Predictions
    slices: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # by name, see graft.data.slices
    groups: Sequence[int] | None = None  # number of what each sample belongs to by split.group, such as a patient


def write(file: BinaryIO, found: Sequence[TestPredictions]) -> None:
    """Write test predictions as Parquet, a row for each sample; the schema's metadata hold the classes by domain."""
    import pyarrow
    from pyarrow import parquet

    tables, classes = [], {}
    for one in found:
        columns = {
            "domain": pyarrow.array([one.domain] * len(one.predictions)),
            "index": pyarrow.array(one.indices.tolist(), pyarrow.int64()),
            "sample": pyarrow.array(one.samples, pyarrow.string()),
            "label": pyarrow.array(one.labels),
            "prediction": pyarrow.array(one.predictions.labels),
            **({"group": pyarrow.array(one.groups, pyarrow.int64())} if one.groups is not None else {}),
            **{f"{SLICE}{name}": pyarrow.array(values) for name, values in one.slices.items()},
        }
        if one.predictions.probabilities is not None:
            rows = one.predictions.probabilities
            ends = pyarrow.array(np.arange(len(rows) + 1) * rows.shape[1], pyarrow.int32())
            columns["probabilities"] = pyarrow.ListArray.from_arrays(ends, pyarrow.array(rows.ravel()))
            classes[one.domain] = one.predictions.classes
        tables.append(pyarrow.table(columns))
    table = pyarrow.concat_tables(tables, promote_options="permissive")
    parquet.write_table(table.replace_schema_metadata({CLASSES: json.dumps(classes)}), file, compression="zstd")


def read(file: Path) -> dict[str, dict[str, Any]]:
    """Test predictions of each domain: the columns of its rows as lists, and `classes`, None for numbers."""
    from pyarrow import compute, parquet

    table = parquet.read_table(file)
    classes = json.loads(table.schema.metadata[CLASSES.encode()])
    return {
        domain: table.filter(compute.equal(table["domain"], domain)).drop(["domain"]).to_pydict()
        | {CLASSES: classes.get(domain)}
        for domain in table["domain"].unique().to_pylist()
    }
