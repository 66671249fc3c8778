"""Yes or no for each sample."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryConfusionMatrix,
    BinaryF1Score,
)

from graft.errors import GraftError
from graft.tasks.base import Task
from graft.tasks.metrics import Sensitivity, Specificity, YesNoAUROC

MainMetric = Literal["acc", "auroc"]
MAIN_METRICS = get_args(MainMetric)  # of a binary task


class Binary(Task):
    """Yes or no from one output; every metric but AUROC counts a probability above .5 as yes."""

    name = "binary"
    validated = ("loss", "acc", "f1", "sensitivity", "specificity")

    def __init__(self, main_metric: MainMetric = "acc") -> None:
        if main_metric not in MAIN_METRICS:
            raise GraftError(f"task.main_metric={main_metric!r} is not known. Allowed: {', '.join(MAIN_METRICS)}.")
        self.main_metric = main_metric

    def num_outputs(self, classes: Sequence[str] | None) -> int:
        """One output: the log-odds of the second class."""
        if classes and len(classes) != 2:
            raise GraftError(
                f"task=binary needs data with 2 classes, but the data has {len(classes)}: {', '.join(classes)}. "
                "Use task=multiclass."
            )
        return 1

    def loss(self, logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Binary cross entropy, weighted by class where weights are given."""
        labels = labels.to(logits.dtype)
        weights = None if class_weights is None else class_weights.to(logits.dtype)[labels.long()]
        loss = F.binary_cross_entropy_with_logits(logits.squeeze(-1), labels, weight=weights, reduction="sum")
        return loss / (len(labels) if weights is None else weights.sum())

    def scores(self, logits: Tensor) -> Tensor:
        """Log-odds of the second class, `(B,)`."""
        return logits.squeeze(-1)

    def predictions(self, logits: Tensor) -> Tensor:
        """Probability of the second class, `(B,)`."""
        return logits.squeeze(-1).sigmoid()

    def decide(self, predictions: Tensor) -> Tensor:
        """The class `(N,)` that is more probable than not."""
        return (predictions > 0.5).long()

    def probabilities(self, predictions: Tensor) -> Tensor:
        """Of both classes, `(N, 2)`."""
        return torch.stack([1 - predictions, predictions], dim=-1)

    def energy(self, logits: Tensor) -> Tensor | None:
        """Of the logits -z/2 and z/2: only their difference is learned, and both classes count alike."""
        return super().energy(torch.cat([-logits / 2, logits / 2], dim=-1))

    def metrics(self, num_outputs: int) -> MetricCollection:
        """Accuracy, F1 and sensitivity of the second class, specificity; AUROC where it is the main metric."""
        return MetricCollection(
            {
                "acc": BinaryAccuracy(validate_args=False),
                "f1": BinaryF1Score(validate_args=False),
                "sensitivity": Sensitivity(validate_args=False),
                "specificity": Specificity(validate_args=False),
                **({"auroc": YesNoAUROC(validate_args=False)} if self.main_metric == "auroc" else {}),
            }
        )

    def test_metrics(self, num_outputs: int) -> MetricCollection:
        """AUROC, where it is not among the others, and the confusion matrix."""
        auroc = {} if self.main_metric == "auroc" else {"auroc": YesNoAUROC()}
        return MetricCollection({**auroc, "confusion": BinaryConfusionMatrix()}, compute_groups=False)
