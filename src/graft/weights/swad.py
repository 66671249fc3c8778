"""Stochastic weight averaging densely (SWAD; Cha et al., NeurIPS 2021): every step of an overfit-aware window counts.

The weights between two validations are one segment, of which the mean over its steps is kept. The window begins with
the segment of the first validation loss that none of the next ones is below, and ends before the loss stays high.

This is the paper's algorithm 1. The authors' code (LossValley) finds the same end where the loss stays high, but begins
up to `tolerance - converge - 1` segments earlier where their losses are not too high, counts some segments twice, and
leaves out the last segments of a run if all their losses are too high.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import pytorch_lightning as pl
import torch
from annotated_types import Ge
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.optim.swa_utils import get_swa_multi_avg_fn

from graft.config.types import Count
from graft.errors import GraftError
from graft.inputs.base import Batch
from graft.module import TransferModule
from graft.weights.averaging import network


class Window(TypedDict):
    """Segments by the number of the validation that ends them, from 0; `ended` where later ones cannot count."""

    first: int
    last: int
    ended: bool


def find_window(losses: Sequence[float], converge: int, tolerance: int, loss_ratio: float) -> Window | None:
    """The window over the validation losses so far, as in the paper's algorithm 1; None where it has not begun.

    It begins at the first loss that is the lowest of `converge` in a row. It ends `tolerance` validations before the
    first from which that many losses in a row are above `loss_ratio` times the mean of those `converge`.
    """
    starts = range(len(losses) - converge + 1)
    first = next((i for i in starts if losses[i] == min(losses[i : i + converge])), None)
    if first is None:
        return None
    limit = loss_ratio * sum(losses[first : first + converge]) / converge
    for now in range(max(first + converge, tolerance), len(losses)):
        if min(losses[now - tolerance + 1 : now + 1]) > limit:
            return {"first": first, "last": now - tolerance, "ended": True}
    return {"first": first, "last": len(losses) - 1, "ended": False}


@dataclass
class Segment:
    """The mean of the weights over a number of steps."""

    weights: list[Tensor]
    steps: int = 0

    def add(self, weights: list[Tensor]) -> None:
        """Take in the weights of one more step."""
        if self.steps:
            get_swa_multi_avg_fn()(self.weights, weights, self.steps)
        else:
            self.weights = [one.clone() for one in weights]
        self.steps += 1

    def join(self, other: "Segment") -> None:
        """Take in all steps of another one."""
        self.steps += other.steps
        torch._foreach_lerp_(self.weights, other.weights, other.steps / self.steps)


class SWAD(Callback):
    """Finds the window while a run trains, and keeps the mean of its weights beside those that train and are validated.

    Weights that train in no phase are left out. At most `tolerance + 2` means are in memory, or `converge + 1` before
    the window begins. Without a window by the last epoch the mean is that of its last segment.
    """

    chooses_weights = True

    def __init__(
        self,
        converge: Count = 3,
        tolerance: Count = 6,
        loss_ratio: Annotated[float, Ge(1)] = 1.3,
        domain: Literal["target", "source"] | None = None,
    ) -> None:
        self.converge = converge
        self.tolerance = tolerance
        self.loss_ratio = loss_ratio
        self.domain = domain
        self.losses: list[float] = []
        self._open = Segment([])  # since the last validation
        self._pending: dict[int, Segment] = {}  # that may still be in the window, by number
        self._mean = Segment([])  # of those that are
        self._step = 0
        self._trained: list[str] = []  # names of the weights of which there are means

    def find_domain(self, labelled: bool) -> None:
        """Look at the loss of the target where it has labels to train on, else of the source."""
        self.domain = self.domain or ("target" if labelled else "source")

    @property
    def monitor(self) -> str:
        """The loss that decides."""
        return f"val/{self.domain}/loss"

    @property
    def window(self) -> Window | None:
        """What is found so far."""
        return find_window(self.losses, self.converge, self.tolerance, self.loss_ratio)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count steps from here, with what a checkpoint had on the device."""
        self._step = trainer.global_step
        trained = {
            id(one) for optimizer in trainer.optimizers for group in optimizer.param_groups for one in group["params"]
        }
        self._trained = [name for name, one in tested(pl_module).named_parameters() if id(one) in trained]
        for segment in (self._open, self._mean, *self._pending.values()):
            segment.weights = [one.to(pl_module.device) for one in segment.weights]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Take the weights in; a batch that only accumulates gradients changes none."""
        if trainer.global_step > self._step:
            self._step = trainer.global_step
            self._open.add(self.weights_of(pl_module))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the segment with its validation loss."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and self._open.steps:
            if self.monitor not in trainer.callback_metrics:
                raise GraftError(
                    f"averaging.domain={self.domain}: the run does not validate on the {self.domain}, so that there is "
                    f"no {self.monitor}. Use averaging.domain={'source' if self.domain == 'target' else 'target'}."
                )
            self.close(float(trainer.callback_metrics[self.monitor]))

    def close(self, loss: float) -> None:
        """Keep the segment that ends with a validation loss, and put into the mean what is certainly in the window."""
        self._pending[len(self.losses)], self._open = self._open, Segment([])
        self.losses.append(loss)
        if (window := self.window) is None:
            earliest = len(self.losses) - self.converge + 1
        elif window["ended"]:
            self._take(window["last"], window)
            earliest = len(self.losses)
        else:
            self._take(len(self.losses) - self.tolerance, window)
            earliest = window["first"]
        self._pending = {number: one for number, one in self._pending.items() if number >= earliest}

    def _take(self, until: int, window: Window) -> None:
        """Join pending segments of the window up to one to the mean."""
        for number in [number for number in self._pending if window["first"] <= number <= until]:
            segment = self._pending.pop(number)
            if self._mean.steps:
                self._mean.join(segment)
            else:
                self._mean = segment

    def finish(self, module: TransferModule) -> dict[str, Any]:
        """Put the mean into the module, but for BatchNorm's statistics; what it is of, for results.json."""
        if window := self.window:
            self._take(window["last"], window)
            mean = self._mean
        else:
            mean = self._pending[len(self.losses) - 1]
        with torch.no_grad():
            for ours, theirs in zip(self.weights_of(module), mean.weights, strict=True):
                ours.copy_(theirs)
        return {"monitor": self.monitor, "steps": mean.steps, "window": window, "losses": self.losses}

    def weights_of(self, module: pl.LightningModule) -> list[Tensor]:
        """What trains in some phase, of what is tested."""
        parameters = dict(tested(module).named_parameters())
        return [parameters[name].detach() for name in self._trained]

    def state_dict(self) -> dict[str, Any]:
        """All of it, as plain containers."""
        return {
            "trained": self._trained,
            "losses": self.losses,
            "open": vars(self._open),
            "mean": vars(self._mean),
            "pending": {number: vars(one) for number, one in self._pending.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a checkpoint's."""
        self._trained = state_dict["trained"]
        self.losses = list(state_dict["losses"])
        self._open, self._mean = Segment(**state_dict["open"]), Segment(**state_dict["mean"])
        self._pending = {number: Segment(**one) for number, one in state_dict["pending"].items()}


def tested(module: pl.LightningModule) -> nn.ModuleDict:
    """Backbone and heads."""
    assert isinstance(module, TransferModule)
    return network(module)
