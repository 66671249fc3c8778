"""Metrics that cost a step next to nothing: no value leaves the device, and many training batches make one update."""

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from graft.tasks.base import Task

HELD = 16  # training batches of one update, which takes 0.2 ms however large it is


class Mean(Metric):
    """Mean of what is added up; torchmetrics' own looks for NaN in every batch, which waits for the device."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, total: Tensor, count: int) -> None:
        """Add a sum and the number of its summands."""
        self.total += total
        self.count += count

    def compute(self) -> Tensor:
        """The mean of all summands."""
        return self.total / self.count


class TrainingMetrics(nn.Module):
    """Mean loss and main metric of a domain over an epoch's training batches."""

    def __init__(self, task: Task, num_outputs: int) -> None:
        super().__init__()
        self.task = task
        self.loss = Mean()
        self.score = task.metrics(num_outputs)[task.main_metric]
        self._held: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Keep a batch: its mean loss, logits `(B, K)` and labels `(B, ...)`."""
        self._held.append((loss.detach() * len(labels), logits.detach(), labels))
        if len(self._held) == HELD:
            self._update()

    def _update(self) -> None:
        if self._held:
            losses, logits, labels = (list(column) for column in zip(*self._held, strict=True))
            samples, targets = torch.cat(logits), torch.cat(labels)
            self.loss.update(torch.stack(losses).sum(), len(targets))
            self.score.update(self.task.predictions(samples), self.task.targets(targets))
            self._held = []

    def compute(self) -> dict[str, Tensor]:
        """`loss` and the main metric by its name; empty where there was no batch."""
        self._update()
        if not self.loss.update_called:
            return {}
        return {"loss": self.loss.compute(), self.task.main_metric: self.score.compute()}

    def reset(self) -> None:
        """Begin a new epoch."""
        self._held = []
        self.loss.reset()
        self.score.reset()
