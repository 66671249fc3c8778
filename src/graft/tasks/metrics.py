"""Metrics that cost a step next to nothing: no value leaves the device, and many training batches make one update.

Where a split has no sample of a class, a metric of that class is undefined: means are over the others, and NaN, which
is null in results.json, where there is none.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAUROC,
    BinaryRecall,
    BinarySpecificity,
    MulticlassAUROC,
    MulticlassF1Score,
    MultilabelAUROC,
    MultilabelF1Score,
)
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat

from graft.tasks.base import Task

HELD = 16  # training batches of one update, which takes 0.2 ms however large it is


class Mean(Metric):
    """Mean of what is added up; torchmetrics' own looks for NaN in every batch, which waits for the device."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, total: Tensor, count: Tensor | int) -> None:
        """Add a sum and the number of its summands."""
        self.total += total
        self.count += count

    def compute(self) -> Tensor:
        """The mean of all summands."""
        return self.total / self.count


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Part of a whole; NaN where there is no whole."""
    return torch.where(whole > 0, part / whole, math.nan)


def mean_auroc(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean AUROC of the columns `(N, K)` in which there are both yes and no; NaN where there is no such column."""
    counts = labels.sum(0)
    both = ((counts > 0) & (counts < len(labels))).nonzero().flatten().tolist()
    areas = [binary_auroc(ranks(scores[:, k]), labels[:, k].long(), validate_args=False) for k in both]
    return torch.stack(areas).mean() if areas else torch.tensor(math.nan, device=labels.device)


def ranks(scores: Tensor) -> Tensor:
    """Scores `(N,)` of any size in their order within [0, 1], where torchmetrics leaves them alone."""
    _, places = scores.unique(return_inverse=True)
    return places.float() / max(1, len(scores))


class Ranking(Metric):
    """Keeps what orders the samples: scores where there are some, as probabilities round to 0 and 1."""

    preds: list[Tensor]
    target: list[Tensor]

    def update(self, preds: Tensor, target: Tensor, scores: Tensor | None = None) -> None:
        """Add predictions `(B,)` or `(B, K)`, targets, and the task's scores for the same samples."""
        self.preds.append(preds if scores is None else scores)
        self.target.append(target)


class YesNoAUROC(Ranking, BinaryAUROC):
    """AUROC; NaN where all samples have one label."""

    def compute(self) -> Tensor:  # type: ignore[override]  # as torchmetrics' own AUROC classes do
        """The area, over the samples of all processes."""
        scores, labels = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        return mean_auroc(scores[:, None], labels[:, None])


class MacroAUROC(Ranking, MulticlassAUROC):
    """Mean of the one-vs-rest AUROC of the classes that there are."""

    def compute(self) -> Tensor:  # type: ignore[override]  # as torchmetrics' own AUROC classes do
        """The mean, over the samples of all processes."""
        scores, labels = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        return mean_auroc(scores, torch.arange(self.num_classes, device=labels.device) == labels[:, None])


class LabelsAUROC(Ranking, MultilabelAUROC):
    """Mean of the AUROC of the labels that some samples have and others have not."""

    def compute(self) -> Tensor:  # type: ignore[override]  # as torchmetrics' own AUROC classes do
        """The mean, over the samples of all processes."""
        scores, labels = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        return mean_auroc(scores, labels)


class LabelsF1(MultilabelF1Score):
    """Mean F1 of the labels that samples have or are predicted to have."""

    def compute(self) -> Tensor:
        """The mean, over the samples of all processes."""
        tp, fp, _, fn = self._final_state()
        return ratio(2.0 * tp, 2 * tp + fp + fn).nanmean()


class ClassesF1(MulticlassF1Score):
    """Mean F1 of some classes, where the others can be predicted but have no sample."""

    def __init__(self, num_classes: int, classes: Sequence[int]) -> None:
        super().__init__(num_classes, average=None, validate_args=False)
        self.scored = list(classes)

    def compute(self) -> Tensor:
        """The mean, over the samples of all processes."""
        return super().compute()[self.scored].mean()


class Sensitivity(BinaryRecall):
    """Recall of the second class; NaN where no sample is of it."""

    def compute(self) -> Tensor:
        """The share, over the samples of all processes."""
        tp, _, _, fn = self._final_state()
        return ratio(tp, tp + fn)


class Specificity(BinarySpecificity):
    """Recall of the first class; NaN where no sample is of it."""

    def compute(self) -> Tensor:
        """The share, over the samples of all processes."""
        _, fp, tn, _ = self._final_state()
        return ratio(tn, tn + fp)


class R2(Metric):
    """Coefficient of determination; NaN where all labels are equal.

    Its sums are in double precision, without which labels of a large mean leave nothing but rounding.
    """

    full_state_update = False
    higher_is_better = True
    count: Tensor
    total: Tensor
    squares: Tensor
    residuals: Tensor

    def __init__(self) -> None:
        super().__init__()
        double = torch.float32 if torch.backends.mps.is_available() else torch.float64  # which MPS lacks
        for name in ("count", "total", "squares", "residuals"):
            self.add_state(name, torch.zeros((), dtype=double), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Add numbers `(B,)` and what they should be."""
        predictions, labels = predictions.to(self.total.dtype), labels.to(self.total.dtype)
        self.count += labels.numel()
        self.total += labels.sum()
        self.squares += labels.square().sum()
        self.residuals += (labels - predictions).square().sum()

    def compute(self) -> Tensor:
        """One minus the share of the labels' variance that is left."""
        around_mean = self.squares - self.total.square() / self.count
        return (1 - ratio(self.residuals, around_mean)).float()


class TrainingMetrics(nn.Module):
    """Mean loss and main metric of a domain over an epoch's training batches."""

    def __init__(self, task: Task, num_outputs: int) -> None:
        super().__init__()
        self.task = task
        self.loss = Mean()
        scored = [task.main_metric] if task.scores_training else []
        self.score = MetricCollection({name: task.metrics(num_outputs)[name] for name in scored})
        self.ranks = any(isinstance(metric, Ranking) for metric in self.score.values())
        self._held: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Keep a batch: its mean loss, logits `(B, K)` and labels `(B, ...)`."""
        if not self.score:
            self.loss.update(loss.detach() * len(labels), len(labels))
            return
        self._held.append((loss.detach() * len(labels), logits.detach(), labels))
        if len(self._held) == HELD:
            self._update()

    def _update(self) -> None:
        if self._held:
            losses, logits, labels = (list(column) for column in zip(*self._held, strict=True))
            samples = torch.cat(logits)
            scores = self.task.scores(samples) if self.ranks else None
            self.count(torch.stack(losses).sum(), self.task.predictions(samples), torch.cat(labels), scores)
            self._held = []

    def count(self, total: Tensor, predictions: Tensor, labels: Tensor, scores: Tensor | None) -> None:
        """Count samples in: summed loss, predictions, labels `(N, ...)`, and scores where the metric `ranks`."""
        self.loss.update(total, len(labels))
        if self.score:
            kept = {} if scores is None else {"scores": scores}
            self.score.update(predictions, self.task.targets(labels), **kept)

    def compute(self) -> dict[str, Tensor]:
        """`loss` and the main metric by its name; empty where there was no batch."""
        self._update()
        if not self.loss.update_called:
            return {}
        return {"loss": self.loss.compute(), **self.score.compute()}

    def reset(self) -> None:
        """Begin a new epoch."""
        self._held = []
        self.loss.reset()
        self.score.reset()
