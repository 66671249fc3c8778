"""One class of several, or none of them: the target has classes that the source lacks (open-set domain adaptation)."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from graft.config.types import FractionBelowOne
from graft.data.label_sets import UNKNOWN
from graft.tasks.metrics import YesNoAUROC, ratio
from graft.tasks.multiclass import Multiclass


class OpenSet(Multiclass):
    """One of the source's K classes, or unknown where the network is less certain than a threshold; labels `(B,)`
    are K for unknown.

    The threshold is the certainty below which `rejected_fraction` of the source's validation samples lie, all of which
    have a class: no label of the target is looked at.
    """

    main_metric = "hos"
    validated = ("loss", "acc", "hos", "os_star", "unk")
    rejects = True
    smooths_labels = False  # only the closed task trains

    def __init__(
        self,
        label_smoothing: FractionBelowOne = 0.0,
        rejection: Literal["probability", "entropy"] = "probability",
        rejected_fraction: FractionBelowOne = 0.05,
    ) -> None:
        super().__init__(label_smoothing)
        self.rejection = rejection
        self.rejected_fraction = rejected_fraction
        self.threshold = -math.inf  # nothing is rejected before there is one

    def closed(self) -> Multiclass:
        """The task of the source."""
        return Multiclass(self.label_smoothing)

    def named(self, classes: Sequence[str]) -> tuple[str, ...]:
        """The classes, and unknown."""
        return (*classes, UNKNOWN)

    def certainty(self, predictions: Tensor) -> Tensor:
        """Largest probability, or negative entropy in nats, `(N,)` of class probabilities `(N, K)`."""
        if self.rejection == "probability":
            return predictions.amax(dim=-1)
        return torch.special.xlogy(predictions, predictions).sum(dim=-1)

    def choose_threshold(self, predictions: Tensor) -> None:
        """From class probabilities `(N, K)` of samples that all have a class."""
        certainty = self.certainty(predictions)
        self.threshold = float(certainty.quantile(self.rejected_fraction, interpolation="lower"))

    def decide(self, predictions: Tensor) -> Tensor:
        """The most probable class `(N,)`, K where it is rejected."""
        unknown = self.certainty(predictions) < self.threshold
        return predictions.argmax(dim=-1).masked_fill(unknown, predictions.shape[-1])

    def summed_loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropy summed over the samples of the source's classes, and their number."""
        unknown = logits.shape[-1]
        return F.cross_entropy(logits, labels, ignore_index=unknown, reduction="sum"), (labels != unknown).sum()

    def state_dict(self) -> dict[str, float]:
        """The threshold."""
        return {"threshold": self.threshold}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take over a threshold."""
        self.threshold = state["threshold"]

    def metrics(self, num_outputs: int) -> MetricCollection:
        """Accuracy with unknown as one class more, and OS*, UNK and HOS (Bucci et al., ECCV 2020)."""
        kinds = {"hos": HOS, "os_star": KnownAccuracy, "unk": UnknownAccuracy, "acc": OpenAccuracy}
        return MetricCollection({name: kind(self, num_outputs) for name, kind in kinds.items()}, compute_groups=False)

    def test_metrics(self, num_outputs: int) -> MetricCollection:
        """AUROC of unknown against known by certainty, which needs no threshold, and the confusion matrix."""
        return MetricCollection(
            {"auroc": UnknownAUROC(self, num_outputs), "confusion": Decisions(self, num_outputs)}, compute_groups=False
        )


class Decisions(MulticlassConfusionMatrix):
    """Counts `(K + 1, K + 1)` of labels and what was decided; the last of each is unknown."""

    def __init__(self, task: OpenSet, num_known: int) -> None:
        super().__init__(num_known + 1, validate_args=False)
        self.task = task

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add class probabilities `(B, K)` and labels `(B,)`."""
        super().update(self.task.decide(preds), target)

    def recalls(self) -> Tensor:
        """Accuracy of every class `(K + 1,)`; NaN for one without a sample."""
        return ratio(self.confmat.diagonal().float(), self.confmat.sum(dim=1))


class KnownAccuracy(Decisions):
    """OS*: the mean over the classes that both sides have of each class's accuracy."""

    def compute(self) -> Tensor:
        """The mean, over the samples of all processes."""
        return self.recalls()[:-1].nanmean()


class UnknownAccuracy(Decisions):
    """UNK: the share of the unknown samples that are rejected."""

    def compute(self) -> Tensor:
        """The share, over the samples of all processes."""
        return self.recalls()[-1]


class HOS(Decisions):
    """Harmonic mean of OS* and UNK."""

    def compute(self) -> Tensor:
        """The mean, over the samples of all processes."""
        recalls = self.recalls()
        known, unknown = recalls[:-1].nanmean(), recalls[-1]
        return 2 * known * unknown / (known + unknown).clamp(min=torch.finfo(known.dtype).tiny)


class OpenAccuracy(Decisions):
    """The share of all samples that are decided as they are."""

    def compute(self) -> Tensor:
        """The share, over the samples of all processes."""
        return self.confmat.trace() / self.confmat.sum()


class UnknownAUROC(YesNoAUROC):
    """AUROC of uncertainty, for unknown against known."""

    def __init__(self, task: OpenSet, num_known: int) -> None:
        super().__init__()
        self.task = task
        self.num_known = num_known

    def update(self, preds: Tensor, target: Tensor) -> None:  # type: ignore[override]  # it has scores of its own
        """Add class probabilities `(B, K)` and labels `(B,)`."""
        super().update(-self.task.certainty(preds), target == self.num_known)
