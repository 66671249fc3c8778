"""Boxes of classes in an image."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchmetrics import MetricCollection

from graft.config.types import FractionBelowOne
from graft.data.boxes import Boxes
from graft.heads.dense import DenseOutputs
from graft.tasks.base import Task
from graft.tasks.box_metrics import AveragePrecision, ClassAveragePrecision


class Detection(Task):
    """Boxes with classes; labels are Boxes, and a head that gives DenseOutputs predicts them.

    Metrics are in pixels of the images as they were read.
    """

    name = "detection"
    main_metric = "map50"
    validated = ("loss", "map50", "map")
    label_kind = "boxes"
    scores_training = False
    takes_maps = True  # the head's outputs are of maps

    def __init__(self, score: FractionBelowOne = 0.5) -> None:
        """`score` is that from which a predicted box is shown and written; metrics look at all of them."""
        self.score = score
        self.class_names: tuple[str, ...] = ()

    def num_outputs(self, classes: Sequence[str] | None) -> int:
        """One output a class at each anchor."""
        self.class_names = tuple(classes or ())
        return super().num_outputs(classes)

    def loss(self, logits: Any, labels: Any, class_weights: Tensor | None = None) -> Tensor:
        """The detector's own loss: the sum of its parts, the mean over the images."""
        outputs: DenseOutputs = logits
        return outputs.loss(labels)

    def predictions(self, logits: Any) -> Any:
        """Boxes with scores, in pixels of the padded images."""
        return logits.detections()

    def compared(self, logits: Any, labels: Any) -> tuple[Any, Any, Any]:
        """Predictions and labels in pixels of the images as they were read."""
        predictions: Boxes = self.predictions(logits)
        return predictions.restored(like=labels), labels.restored(), None

    def decide(self, predictions: Any) -> Any:
        """Those that score enough to be shown."""
        return predictions.above(self.score)

    def probabilities(self, predictions: Any) -> None:
        """None: a box has a score of its own."""
        return None

    def energy(self, logits: Any) -> None:
        """None: an image has no logits."""
        return None

    def metrics(self, num_outputs: int) -> MetricCollection:
        """Mean over classes of average precision: at an overlap of .5, and over overlaps of .5 to .95."""
        return MetricCollection({"ap": AveragePrecision()})

    def test_metrics(self, num_outputs: int) -> MetricCollection:
        """Average precision of each class at an overlap of .5."""
        names = self.class_names or tuple(map(str, range(num_outputs)))
        return MetricCollection({"ap_of_classes": ClassAveragePrecision(names)})
