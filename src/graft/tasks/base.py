"""What a task is: loss, metrics and output size of what is predicted."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torchmetrics import MetricCollection

if TYPE_CHECKING:
    from graft.backbones.base import Backbone

LOWER_IS_BETTER = ("loss", "loss_smoothed", "mae", "rmse", "perplexity")


class Task:
    """A kind of prediction; `main_metric` is what checkpoints and tables are ordered by."""

    name: str
    main_metric = "acc"
    validated: tuple[str, ...] = (
        "loss",
        "acc",
        "f1",
    )  # what validation computes, beside the main metric: selection.metric is one of it
    higher_is_better = True
    label_kind = "classes"  # classes | numbers | multilabel | boxes | texts: what data.target.label_kind has to be
    rejects = False  # whether a sample may be of no class: `choose_threshold` is called before validation and test
    takes_maps = False  # whether it needs a head whose outputs are of maps
    writes = False  # whether it needs a head that writes texts
    scores_training = True  # whether the main metric is computed on training batches too
    soft_labels = False  # whether the loss takes labels (B, K) that are mixtures, with entries in [0, 1]

    def num_outputs(self, classes: Sequence[str] | None) -> int:
        """Size of the head's output."""
        return len(classes) if classes else 1

    def fit(self, labels: Tensor) -> None:
        """Take from the training labels `(N,)` what the task has to know of them; nothing for classes."""

    def see_backbone(self, backbone: "Backbone") -> None:
        """Take from the backbone what the task has to know of it, such as its tokens; nothing for most."""

    def loss(self, logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Mean loss over the samples of a batch: logits `(B, K)`, labels `(B,)` or `(B, K)`."""
        raise NotImplementedError

    def training_loss(self, logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """The `loss` of a training batch."""
        return self.loss(logits, labels, class_weights)

    @property
    def smooths_labels(self) -> bool:
        """Whether `loss` compares with smoothed labels, so that its value depends on how much."""
        return False

    def plain_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss without label smoothing, which validation and test report."""
        return self.loss(logits, labels)

    def summed_loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | int]:
        """The plain loss summed over the samples that have one, and their number."""
        return self.plain_loss(logits, labels) * len(labels), len(labels)

    def compared(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predictions, targets and scores of a batch, as metrics take them."""
        return self.predictions(logits), self.targets(labels), self.scores(logits)

    def scores(self, logits: Tensor) -> Tensor:
        """What AUROC orders samples by: as `predictions`, but without bounds at which different values become equal."""
        return self.predictions(logits)

    def predictions(self, logits: Tensor) -> Tensor:
        """What the metrics take: probabilities, or the numbers themselves."""
        return logits

    def decide(self, predictions: Tensor) -> Tensor:
        """Labels as the data have them, of what `predictions` gave: classes `(N,)`, 0 and 1 `(N, K)`, or numbers."""
        raise NotImplementedError

    def named(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Names of what labels and `decide` number, where the head's outputs are of these classes."""
        return tuple(classes)

    def choose_threshold(self, predictions: Tensor) -> None:
        """Choose when a sample is rejected, by `predictions` of source validation samples, which all have a class."""
        raise NotImplementedError

    def closed(self) -> "Task":
        """The same task on data of which every sample has a class."""
        return self

    def probabilities(self, predictions: Tensor) -> Tensor | None:
        """The probability of every class `(N, K)`, of what `predictions` gave; None for numbers."""
        return predictions

    def energy(self, logits: Tensor) -> Tensor | None:
        """Free energy `(B,)` (Liu et al., 2020), high for inputs unlike the training data; None for numbers."""
        return -logits.logsumexp(dim=-1)

    def state_dict(self) -> dict[str, Any]:
        """What `fit` took from the labels, which travels with the model."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what another task's `state_dict` gave."""

    def targets(self, labels: Tensor) -> Tensor:
        """Labels in the type that the metrics take; of soft ones those that weigh most."""
        return labels.long()

    def metrics(self, num_outputs: int) -> MetricCollection:
        """Cheap metrics, computed on validation and test."""
        raise NotImplementedError

    def test_metrics(self, num_outputs: int) -> MetricCollection:
        """Metrics that keep every prediction, or a matrix; computed on test only."""
        return MetricCollection({})
