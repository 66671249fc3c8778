"""A number for each sample."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection

from graft.errors import GraftError
from graft.tasks.base import Task
from graft.tasks.metrics import R2

LOSSES = {"mse": F.mse_loss, "l1": F.l1_loss}  # of a regression


class Regression(Task):
    """A number; outputs are standardised by the training labels, so that networks start near them in any unit."""

    name = "regression"
    main_metric = "mae"
    validated = ("loss", "mae", "rmse", "r2")
    higher_is_better = False
    label_kind = "numbers"

    def __init__(self, loss: Literal["mse", "l1"] = "mse") -> None:
        if loss not in LOSSES:
            raise GraftError(f"task.loss={loss!r} is not a regression loss. Allowed: {', '.join(LOSSES)}.")
        self.loss_function = LOSSES[loss]
        self.mean, self.std = 0.0, 1.0

    def fit(self, labels: Tensor) -> None:
        """Their mean and standard deviation."""
        self.mean = float(labels.double().mean())
        self.std = float(labels.double().std(correction=0)) or 1.0

    def num_outputs(self, classes: Sequence[str] | None) -> int:
        """One number."""
        if classes:
            raise GraftError(f"task=regression needs numbers, but the data has classes: {', '.join(classes)}.")
        return 1

    def loss(self, logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Mean squared or absolute error, in standard deviations of the training labels."""
        return self.loss_function(logits.squeeze(-1), ((labels - self.mean) / self.std).to(logits.dtype))

    def predictions(self, logits: Tensor) -> Tensor:
        """The number itself, `(B,)`, in the labels' unit."""
        return logits.squeeze(-1) * self.std + self.mean

    def decide(self, predictions: Tensor) -> Tensor:
        """The number itself."""
        return predictions

    def probabilities(self, predictions: Tensor) -> None:
        """A number has none."""
        return None

    def energy(self, logits: Tensor) -> None:
        """A number has none."""
        return None

    def state_dict(self) -> dict[str, float]:
        """Mean and standard deviation of the training labels."""
        return {"mean": self.mean, "std": self.std}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take over the mean and standard deviation of other labels."""
        self.mean, self.std = state["mean"], state["std"]

    def targets(self, labels: Tensor) -> Tensor:
        """Labels as floats."""
        return labels.to(torch.get_default_dtype())

    def metrics(self, num_outputs: int) -> MetricCollection:
        """Mean absolute error, root mean squared error, coefficient of determination."""
        return MetricCollection({"mae": MeanAbsoluteError(), "rmse": MeanSquaredError(squared=False), "r2": R2()})
