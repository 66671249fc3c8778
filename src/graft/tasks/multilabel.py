"""Any number of classes for each sample."""

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MultilabelAccuracy

from graft.errors import GraftError
from graft.tasks.base import Task
from graft.tasks.metrics import LabelsAUROC, LabelsF1


class Multilabel(Task):
    """Any number of labels at once, `(B, K)`; soft ones lie between 0 and 1."""

    name = "multilabel"
    label_kind = "multilabel"
    soft_labels = True

    def loss(self, logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Binary cross entropy, mean over samples and labels."""
        if labels.shape != logits.shape:
            raise GraftError(
                f"task=multilabel needs a yes or no for each of {logits.shape[1]} labels, but the data has one class "
                "a sample. Use task=multiclass."
            )
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), weight=class_weights)

    def scores(self, logits: Tensor) -> Tensor:
        """Log-odds of each label, `(B, K)`."""
        return logits

    def predictions(self, logits: Tensor) -> Tensor:
        """A probability a label, `(B, K)`."""
        return logits.sigmoid()

    def energy(self, logits: Tensor) -> Tensor:
        """Sum of the labels' free energies (Wang et al., 2021)."""
        return -F.softplus(logits).sum(dim=-1)

    def decide(self, predictions: Tensor) -> Tensor:
        """1 for each label that is more probable than not, `(N, K)`."""
        return (predictions > 0.5).long()

    def targets(self, labels: Tensor) -> Tensor:
        """Yes or no for each label; of soft labels those of the sample that weighs most."""
        return (labels > 0.5).long()

    def metrics(self, num_outputs: int) -> MetricCollection:
        """Accuracy over all labels and macro F1."""
        return MetricCollection(
            {
                "acc": MultilabelAccuracy(num_outputs, average="micro", validate_args=False),
                "f1": LabelsF1(num_outputs, average="macro", validate_args=False),
            }
        )

    def test_metrics(self, num_outputs: int) -> MetricCollection:
        """Macro AUROC."""
        return MetricCollection({"auroc": LabelsAUROC(num_outputs)})
