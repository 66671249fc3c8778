"""What is predicted: a task owns its loss, its metrics and the head's output size."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection, R2Score
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryConfusionMatrix,
    BinaryF1Score,
    BinaryRecall,
    BinarySpecificity,
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MultilabelAccuracy,
    MultilabelAUROC,
    MultilabelF1Score,
)

from graft.config.types import FractionBelowOne
from graft.errors import GraftError

MAIN_METRICS = ("acc", "auroc")  # of a binary task
LOSSES = {"mse": F.mse_loss, "l1": F.l1_loss}  # of a regression


class Task:
    """A kind of prediction; `main_metric` is what checkpoints and tables are ordered by."""

    name: str
    main_metric = "acc"
    higher_is_better = True
    soft_labels = False  # whether the loss takes labels (B, K) that are mixtures, with entries in [0, 1]

    def outputs(self, classes: Sequence[str] | None) -> int:
        """Size of the head's output."""
        return len(classes) if classes else 1

    def fit(self, labels: Tensor) -> None:
        """Take from the training labels `(N,)` what the task has to know of them; nothing for classes."""

    def loss(self, outputs: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Mean loss over the samples of a batch: outputs `(B, K)`, labels `(B,)` or `(B, K)`."""
        raise NotImplementedError

    def predictions(self, outputs: Tensor) -> Tensor:
        """What the metrics take: probabilities, or the numbers themselves."""
        return outputs

    def targets(self, labels: Tensor) -> Tensor:
        """Labels in the type that the metrics take; of soft ones those that weigh most."""
        return labels.long()

    def metrics(self, outputs: int) -> MetricCollection:
        """Cheap metrics, computed on validation and test."""
        raise NotImplementedError

    def test_metrics(self, outputs: int) -> MetricCollection:
        """Metrics that keep every prediction, or a matrix; computed on test only."""
        return MetricCollection({})


class Multiclass(Task):
    """One class of several; labels are classes `(B,)`, or soft ones `(B, K)` whose rows sum to 1."""

    name = "multiclass"
    soft_labels = True

    def __init__(self, label_smoothing: FractionBelowOne = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def outputs(self, classes: Sequence[str] | None) -> int:
        """One output a class."""
        if not classes or len(classes) < 2:
            raise GraftError(
                f"task=multiclass needs data with at least 2 classes, but the data has {list(classes or [])}. "
                "Use task=regression for numbers, task=binary for one yes/no output."
            )
        return len(classes)

    def loss(self, outputs: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Cross entropy with label smoothing, class-weighted where weights are given."""
        smoothing = self.label_smoothing
        if labels.ndim == 1:
            return F.cross_entropy(outputs, labels, weight=class_weights, label_smoothing=smoothing)
        # torch's mean over soft labels leaves out the sum of the weights, which it divides by for classes.
        loss = F.cross_entropy(outputs, labels, weight=class_weights, label_smoothing=smoothing, reduction="sum")
        return loss / (len(labels) if class_weights is None else (labels * class_weights).sum())

    def predictions(self, outputs: Tensor) -> Tensor:
        """Class probabilities `(B, K)`."""
        return outputs.softmax(dim=-1)

    def targets(self, labels: Tensor) -> Tensor:
        """Classes `(B,)`; of soft labels the one that weighs most."""
        return labels.long() if labels.ndim == 1 else labels.argmax(dim=-1)

    def metrics(self, outputs: int) -> MetricCollection:
        """Accuracy over samples and macro F1 over classes."""
        return MetricCollection(
            {
                "acc": MulticlassAccuracy(outputs, average="micro", validate_args=False),
                "f1": MulticlassF1Score(outputs, average="macro", validate_args=False),
            }
        )

    def test_metrics(self, outputs: int) -> MetricCollection:
        """Macro one-vs-rest AUROC and the confusion matrix."""
        return MetricCollection(
            {"auroc": MulticlassAUROC(outputs), "confusion": MulticlassConfusionMatrix(outputs)}, compute_groups=False
        )


class Binary(Task):
    """Yes or no from one output; every metric but AUROC counts a probability above .5 as yes."""

    name = "binary"

    def __init__(self, main_metric: Literal[MAIN_METRICS] = "acc") -> None:
        if main_metric not in MAIN_METRICS:
            raise GraftError(f"task.main_metric={main_metric!r} is not known. Allowed: {', '.join(MAIN_METRICS)}.")
        self.main_metric = main_metric

    def outputs(self, classes: Sequence[str] | None) -> int:
        """One output: the log-odds of the second class."""
        if classes and len(classes) != 2:
            raise GraftError(
                f"task=binary needs data with 2 classes, but the data has {len(classes)}: {', '.join(classes)}. "
                "Use task=multiclass."
            )
        return 1

    def loss(self, outputs: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Binary cross entropy, weighted by class where weights are given."""
        labels = labels.to(outputs.dtype)
        weights = None if class_weights is None else class_weights.to(outputs.dtype)[labels.long()]
        loss = F.binary_cross_entropy_with_logits(outputs.squeeze(-1), labels, weight=weights, reduction="sum")
        return loss / (len(labels) if weights is None else weights.sum())

    def predictions(self, outputs: Tensor) -> Tensor:
        """Probability of the second class, `(B,)`."""
        return outputs.squeeze(-1).sigmoid()

    def metrics(self, outputs: int) -> MetricCollection:
        """Accuracy, F1 and sensitivity of the second class, specificity; AUROC where it is the main metric."""
        return MetricCollection(
            {
                "acc": BinaryAccuracy(validate_args=False),
                "f1": BinaryF1Score(validate_args=False),
                "sensitivity": BinaryRecall(validate_args=False),
                "specificity": BinarySpecificity(validate_args=False),
                **({"auroc": BinaryAUROC(validate_args=False)} if self.main_metric == "auroc" else {}),
            }
        )

    def test_metrics(self, outputs: int) -> MetricCollection:
        """AUROC, where it is not among the others, and the confusion matrix."""
        auroc = {} if self.main_metric == "auroc" else {"auroc": BinaryAUROC()}
        return MetricCollection({**auroc, "confusion": BinaryConfusionMatrix()}, compute_groups=False)


class Multilabel(Task):
    """Any number of labels at once, `(B, K)`; soft ones lie between 0 and 1."""

    name = "multilabel"
    soft_labels = True

    def loss(self, outputs: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Binary cross entropy, mean over samples and labels."""
        if labels.shape != outputs.shape:
            raise GraftError(
                f"task=multilabel needs a yes or no for each of {outputs.shape[1]} labels, but the data has one class "
                "a sample. Use task=multiclass."
            )
        return F.binary_cross_entropy_with_logits(outputs, labels.to(outputs.dtype), weight=class_weights)

    def predictions(self, outputs: Tensor) -> Tensor:
        """A probability a label, `(B, K)`."""
        return outputs.sigmoid()

    def targets(self, labels: Tensor) -> Tensor:
        """Yes or no for each label; of soft labels those of the sample that weighs most."""
        return (labels > 0.5).long()

    def metrics(self, outputs: int) -> MetricCollection:
        """Accuracy over all labels and macro F1."""
        return MetricCollection(
            {
                "acc": MultilabelAccuracy(outputs, average="micro", validate_args=False),
                "f1": MultilabelF1Score(outputs, average="macro", validate_args=False),
            }
        )

    def test_metrics(self, outputs: int) -> MetricCollection:
        """Macro AUROC."""
        return MetricCollection({"auroc": MultilabelAUROC(outputs)})


class Regression(Task):
    """A number; outputs are standardised by the training labels, so that networks start near them in any unit."""

    name = "regression"
    main_metric = "mae"
    higher_is_better = False

    def __init__(self, loss: Literal[tuple(LOSSES)] = "mse") -> None:
        if loss not in LOSSES:
            raise GraftError(f"task.loss={loss!r} is not a regression loss. Allowed: {', '.join(LOSSES)}.")
        self.loss_function = LOSSES[loss]
        self.mean, self.std = 0.0, 1.0

    def fit(self, labels: Tensor) -> None:
        """Their mean and standard deviation."""
        self.mean = float(labels.double().mean())
        self.std = float(labels.double().std(correction=0)) or 1.0

    def outputs(self, classes: Sequence[str] | None) -> int:
        """One number."""
        if classes:
            raise GraftError(f"task=regression needs numbers, but the data has classes: {', '.join(classes)}.")
        return 1

    def loss(self, outputs: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Mean squared or absolute error, in standard deviations of the training labels."""
        return self.loss_function(outputs.squeeze(-1), ((labels - self.mean) / self.std).to(outputs.dtype))

    def predictions(self, outputs: Tensor) -> Tensor:
        """The number itself, `(B,)`, in the labels' unit."""
        return outputs.squeeze(-1) * self.std + self.mean

    def targets(self, labels: Tensor) -> Tensor:
        """Labels as floats."""
        return labels.to(torch.get_default_dtype())

    def metrics(self, outputs: int) -> MetricCollection:
        """Mean absolute error, root mean squared error, coefficient of determination."""
        return MetricCollection({"mae": MeanAbsoluteError(), "rmse": MeanSquaredError(squared=False), "r2": R2Score()})
