"""Average precision of boxes (Everingham et al., 2010; COCO), by torchmetrics and faster-coco-eval."""

import io
import logging
import math
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from graft.data.boxes import Boxes
from graft.errors import GraftError

BACKEND: Literal["faster_coco_eval"] = "faster_coco_eval"


class AveragePrecision(MeanAveragePrecision):
    """`map50` at an overlap (IoU) of .5, and `map` as the mean over .5 to .95; both are means over classes."""

    def __init__(self, **options: Any) -> None:
        if find_spec(BACKEND) is None:
            raise GraftError("task=detection scores boxes with faster-coco-eval: pip install '.[detection]'")
        super().__init__(backend=BACKEND, **options)
        self.warn_on_many_detections = False

    def update(self, preds: Any, target: Any, scores: Tensor | None = None) -> None:
        """Add predictions and labels of some images, in the same pixels."""
        found: Boxes = preds
        super().update(found.dictionaries(), target.dictionaries())

    def computed(self) -> dict[str, Tensor]:
        """What torchmetrics computes, without the tables that COCO's code logs and prints."""
        logging.getLogger(BACKEND).setLevel(logging.WARNING)
        with redirect_stdout(io.StringIO()):
            return super().compute()

    def compute(self) -> dict[str, Tensor]:
        """Both means; NaN where no image has a box."""
        values = self.computed()
        return {"map50": known(values["map_50"]), "map": known(values["map"])}


class ClassAveragePrecision(AveragePrecision):
    """`ap50_<class>`: average precision of each class at an overlap of .5."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(iou_thresholds=[0.5], class_metrics=True)
        self.names = tuple(name.replace("/", "_") for name in names)

    def compute(self) -> dict[str, Tensor]:
        """Of every class; NaN where no image has a box of it."""
        values = self.computed()
        precision = values["map_per_class"].reshape(-1)
        found = dict(zip(values["classes"].reshape(-1).tolist(), precision, strict=True))
        missing = torch.tensor(math.nan, device=precision.device)
        return {f"ap50_{name}": known(found.get(index, missing)) for index, name in enumerate(self.names)}


def known(value: Tensor) -> Tensor:
    """A value, or NaN where there was nothing to measure, which COCO's code calls -1."""
    return torch.where(value < 0, math.nan, value)
