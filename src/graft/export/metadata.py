"""What a file says of itself: inputs and what to do before them, classes, calibration, how it was checked."""

from typing import Any

from graft.data.label_sets import UNKNOWN
from graft.export.candidates import rule_of
from graft.export.deployed import Deployed
from graft.heads.dense import DenseHead
from graft.model.folder import PACKAGES
from graft.model.model import Model, columns_of
from graft.packages import versions_of
from graft.tasks.open_set import OpenSet

FORMAT = 1


def metadata_of(model: Model, deployed: Deployed) -> dict[str, Any]:
    """Plain values for JSON; `checked`, `score` and `int8` join them once they are known."""
    description = model.description
    columns: dict[str, Any] = {}
    if (known := columns_of(model.backbone.input_spec)) is not None:
        columns["numeric"] = [column.name for column in known.numeric]
        columns["categorical"] = {column.name: [*column.categories] for column in known.categorical}
    parts = {"parts": [*model.backbone.parts]} if model.backbone.parts else {}
    boxes = {"candidates": rule_of(model.head)} if isinstance(model.head, DenseHead) else {}
    unknown = {"unknown": unknown_of(model.task)} if isinstance(model.task, OpenSet) else {}
    return {
        "format": FORMAT,
        "name": description.name,
        "backbone": model.backbone.name,
        "modality": description.modality,
        **parts,
        "inputs": [{"name": one.name, "type": one.dtype, "shape": [*one.shape]} for one in deployed.inputs],
        "before": deployed.preprocessing.before,
        **columns,
        "output": deployed.output,
        "classes": description.classes,
        **unknown,
        **boxes,
        "temperature": deployed.temperature,
        "data": dict(description.data),
        "versions": versions_of((*PACKAGES, "onnx", "onnxscript", "onnxruntime")),
    }


def unknown_of(task: OpenSet) -> dict[str, Any]:
    """What an answer of none of the classes is called, and when it is given, which the graph leaves to its reader."""
    what = "the largest probability" if task.rejection == "probability" else "the sum of p log p over the probabilities"
    return {"name": UNKNOWN, "by": task.rejection, "below": task.threshold, "rule": f"{what} is below it"}
