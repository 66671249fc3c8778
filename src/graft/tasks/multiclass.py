"""One class of several for each sample."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)

from graft.config.types import FractionBelowOne
from graft.errors import GraftError
from graft.tasks.base import Task
from graft.tasks.metrics import ClassesF1, MacroAUROC


class Multiclass(Task):
    """One class of several; labels are classes `(B,)`, or soft ones `(B, K)` whose rows sum to 1."""

    name = "multiclass"
    soft_labels = True

    def __init__(self, label_smoothing: FractionBelowOne = 0.0) -> None:
        self.label_smoothing = label_smoothing
        self.scored: Sequence[int] | None = None  # classes whose F1 counts; None: all
        self.loss_classes: Sequence[int] | None = None  # classes in their order that training compares; None: all

    def num_outputs(self, classes: Sequence[str] | None) -> int:
        """One output a class."""
        if not classes or len(classes) < 2:
            raise GraftError(
                f"task=multiclass needs data with at least 2 classes, but the data has {list(classes or [])}. "
                "Use task=regression for numbers, task=binary for one yes/no output."
            )
        return len(classes)

    def loss(self, logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Cross entropy with label smoothing, class-weighted where weights are given."""
        smoothing = self.label_smoothing
        if labels.ndim == 1:
            return F.cross_entropy(logits, labels, weight=class_weights, label_smoothing=smoothing)
        # torch's mean over soft labels leaves out the sum of the weights, which it divides by for classes.
        loss = F.cross_entropy(logits, labels, weight=class_weights, label_smoothing=smoothing, reduction="sum")
        return loss / (len(labels) if class_weights is None else (labels * class_weights).sum())

    def training_loss(self, logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """The loss among the classes that training compares; labels are of these."""
        if self.loss_classes is None:
            return self.loss(logits, labels, class_weights)
        kept = torch.tensor(self.loss_classes, device=logits.device)
        labels = torch.searchsorted(kept, labels) if labels.ndim == 1 else labels[:, kept]
        return self.loss(logits[:, kept], labels, None if class_weights is None else class_weights[kept])

    @property
    def smooths_labels(self) -> bool:
        """Whether there is label smoothing."""
        return self.label_smoothing > 0

    def plain_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy."""
        return F.cross_entropy(logits, labels)

    def scores(self, logits: Tensor) -> Tensor:
        """Log-odds of each class against the others, `(B, K)`."""
        logits = logits.float()
        log_p = logits.log_softmax(dim=-1)
        odds = log_p - torch.log1p(-log_p.exp())
        # The first class's probability may round to 1: its odds come from the other logits.
        top = logits.argmax(dim=-1, keepdim=True)
        others = logits.scatter(-1, top, -math.inf).logsumexp(dim=-1, keepdim=True)
        return odds.scatter(-1, top, logits.gather(-1, top) - others)

    def predictions(self, logits: Tensor) -> Tensor:
        """Class probabilities `(B, K)`."""
        return logits.softmax(dim=-1)

    def decide(self, predictions: Tensor) -> Tensor:
        """The most probable class `(N,)`."""
        return predictions.argmax(dim=-1)

    def targets(self, labels: Tensor) -> Tensor:
        """Classes `(B,)`; of soft labels the one that weighs most."""
        return labels.long() if labels.ndim == 1 else labels.argmax(dim=-1)

    def metrics(self, num_outputs: int) -> MetricCollection:
        """Accuracy over samples and macro F1 over classes."""
        f1 = MulticlassF1Score(num_outputs, average="macro", validate_args=False)
        return MetricCollection(
            {
                "acc": MulticlassAccuracy(num_outputs, average="micro", validate_args=False),
                "f1": f1 if self.scored is None else ClassesF1(num_outputs, self.scored),
            }
        )

    def test_metrics(self, num_outputs: int) -> MetricCollection:
        """Macro one-vs-rest AUROC and the confusion matrix."""
        return MetricCollection(
            {"auroc": MacroAUROC(num_outputs), "confusion": MulticlassConfusionMatrix(num_outputs)},
            compute_groups=False,
        )
