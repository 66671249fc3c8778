"""Training that meets NaN or infinity: it stops before anything of it is saved, leaves the step out, or goes on."""

import math
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from graft.errors import Diverged
from graft.inputs.base import Batch
from graft.module import TransferModule
from graft.training.nonfinite import TrainedStep, advice, training_report, validation_report, weights_of

READ_EVERY = 50  # optimizer steps; until then losses wait on the device, so that no step waits for it


class NonFinite(Callback):
    """Watches losses, weights and BatchNorm statistics of a fit.

    Losses are looked at every READ_EVERY steps, weights too at an epoch's end and before a checkpoint: gradients that
    are not finite show in the next loss or, after a last step, in the weights. What then happens is the `policy`:
    `stop` raises Diverged. `continue` only keeps the report. `skip` looks at loss and gradients in every step,
    which waits for the device, and leaves out an optimizer step with bad ones: weights, optimizer state, BatchNorm
    statistics and other buffers stay as before the step, while schedule and step counter go on; an epoch without one
    good step is Diverged. Under float16, steps that the gradient scaler leaves out because of its scale are its own.

    Stands behind an average of the weights and before callbacks that save. `prefix` is that of the optimizer's keys.
    """

    def __init__(self, folder: Path, policy: str = "stop", prefix: str = "") -> None:
        self.folder = folder
        self.policy = policy
        self.prefix = prefix
        self.first: dict[str, Any] | None = None  # what was met first, as in graft.training.nonfinite
        self.skipped = 0
        self._stepped = False  # whether the epoch has had a good step

    def describe(self) -> dict[str, Any] | None:
        """What was met, for results.json; None where everything was finite."""
        if self.first is None and not self.skipped:
            return None
        return {"policy": self.policy, "skipped_steps": self.skipped, "first": self.first}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with nothing seen."""
        assert isinstance(pl_module, TransferModule)
        self._steps: list[TrainedStep] = []
        self._before: list[TrainedStep] = []  # the last one that was looked at
        self._read_at = trainer.global_step
        self._weights_read_at = -1
        self._bad: str | None = None  # what of the step was not finite, where steps are left out
        self._left_out = 0  # the number of the last such step
        pl_module.leave_out_nonfinite = self.policy == "skip"

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Number the step; keep what a step that is left out has to restore."""
        assert isinstance(pl_module, TransferModule)
        self._number = trainer.global_step + 1
        if self.policy == "skip" and batch_idx % trainer.accumulate_grad_batches == 0:
            self._bad = None
            self._buffers = {name: buffer.clone() for name, buffer in pl_module.named_buffers()}

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Look at the loss, where steps are left out."""
        if self.policy == "skip" and not bool(loss.isfinite()):
            self._bad = self._bad or "loss"

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Leave the step out where loss or gradients are not finite on any process."""
        assert isinstance(pl_module, TransferModule)
        if self.policy != "skip":
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        if not scaled and self._bad is None and not all_finite([p.grad for p in parameters if p.grad is not None]):
            self._bad = "gradients"
        self._bad_rank = self._first_of_all(trainer, trainer.world_size if self._bad is None else trainer.global_rank)
        if self._bad_rank == trainer.world_size:
            self._stepped = True
            return
        self._bad = self._bad or "gradients"
        if self._left_out != self._number:  # else it was one of a batch's further steps (graft.terms.base.Update)
            self._left_out = self._number
            self.skipped += 1
        if not scaled:  # else the scaler leaves it out, which has to see the gradients
            for parameter in parameters:
                parameter.grad = None
        with torch.no_grad():
            for name, buffer in pl_module.named_buffers():
                buffer.copy_(self._buffers[name])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Note the step, and read what was noted where it is time."""
        assert isinstance(pl_module, TransferModule)
        if self._done:
            return
        rate = trainer.optimizers[0].param_groups[-1]["lr"]
        step = TrainedStep(self._number, trainer.current_epoch, batch_idx, rate, outputs["loss"], pl_module.step_losses)
        if self.policy == "skip":
            if self._bad is not None and self.first is None and trainer.global_step >= self._number:
                # The loss of a term's update is none of what the report names.
                value = "gradients" if self._bad == "loss" and bool(step.loss.isfinite()) else self._bad
                self._tell(trainer, pl_module, value, [*self._before, step], self._bad_rank)
            self._before = [step]
            return
        self._steps.append(step)
        if trainer.is_last_batch or trainer.global_step - self._read_at >= READ_EVERY:
            self._read_losses(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look before the epoch is validated."""
        assert isinstance(pl_module, TransferModule)
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._read(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the validation losses, before the weights count as the best."""
        assert isinstance(pl_module, TransferModule)
        if trainer.state.fn != "fit" or trainer.sanity_checking or self.first is not None:
            return
        metrics = trainer.callback_metrics
        losses = {k: float(v) for k, v in metrics.items() if k.startswith("val/") and k.endswith("/loss")}
        bad = {name: value for name, value in losses.items() if not math.isfinite(value)}
        if bad and self._before:
            self._found(trainer, pl_module, validation_report(trainer, pl_module, bad, self._before[-1]))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look before the epoch is saved."""
        assert isinstance(pl_module, TransferModule)
        self._read(trainer, pl_module)
        stepped, self._stepped = self._stepped, False
        if self.policy == "skip" and self.first is not None and not stepped:
            where = f"every step of epoch {trainer.current_epoch + 1} was left out; at first"
            self._raise(trainer, pl_module, {**self.first, "message": f"{where} {self.first['message']}"})

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Look before anything is written."""
        assert isinstance(pl_module, TransferModule)
        self._read(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep no tensors."""
        self._steps, self._before = [], []

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Keep no tensors."""
        self._steps, self._before = [], []

    def _read(self, trainer: pl.Trainer, module: TransferModule) -> None:
        """Look at the losses since the last time, and at the weights."""
        if self._steps:
            self._read_losses(trainer, module)
        if self._done or not self._before or self._weights_read_at == trainer.global_step:
            return
        self._weights_read_at = trainer.global_step
        finite = all_finite(list(weights_of(module).values()))
        rank = self._first_of_all(trainer, trainer.world_size if finite else trainer.global_rank)
        if rank < trainer.world_size:
            self._tell(trainer, module, "weights", self._before, rank)

    def _read_losses(self, trainer: pl.Trainer, module: TransferModule) -> None:
        """Look at the losses since the last time; the processes agree on the first bad one."""
        steps, self._steps = [*self._before, *self._steps], []
        self._before, self._read_at = steps[-1:], trainer.global_step
        finite = torch.stack([step.loss for step in steps]).isfinite().tolist()
        rank, world = trainer.global_rank, trainer.world_size
        found = finite.index(False) * world + rank if False in finite else len(steps) * world
        place, rank = divmod(self._first_of_all(trainer, found), world)
        if place < len(steps):
            self._tell(trainer, module, "loss", steps[max(0, place - 1) : place + 1], rank)

    @property
    def _done(self) -> bool:
        """Whether nothing that may come is of interest any more."""
        return self.first is not None and self.policy != "skip"

    def _first_of_all(self, trainer: pl.Trainer, number: int) -> int:
        """The smallest number of any process."""
        if trainer.world_size == 1:
            return number
        numbers = torch.tensor(number, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(numbers, reduce_op="min"))

    def _tell(
        self, trainer: pl.Trainer, module: TransferModule, value: str, steps: list[TrainedStep], rank: int
    ) -> None:
        self._found(trainer, module, training_report(trainer, module, value, steps, rank, self.folder), value)

    def _found(self, trainer: pl.Trainer, module: TransferModule, report: dict[str, Any], value: str = "") -> None:
        """Keep the first report; end the fit, or say how it goes on."""
        self.first = self.first or report
        if self.policy == "stop" or (self.policy == "skip" and value == "weights"):
            self._raise(trainer, module, report)
        goes_on = "such steps are left out" if value and self.policy == "skip" else "training goes on"
        say(f"Not finite: {report['message']}\n  training.on_nonfinite={self.policy}: {goes_on}")

    def _raise(self, trainer: pl.Trainer, module: TransferModule, report: dict[str, Any]) -> NoReturn:
        raise Diverged(f"Diverged: {report['message']}\n{advice(trainer, module, report, self.prefix)}")

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on has to know; nothing where everything was finite."""
        if self.policy == "stop":
            return {}
        return {"first": self.first, "skipped": self.skipped, "stepped": self._stepped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting, unless this run stops where the other went on."""
        if self.policy != "stop":
            self.first, self.skipped = state_dict["first"], state_dict["skipped"]
            self._stepped = state_dict["stepped"]


def all_finite(tensors: list[Tensor]) -> bool:
    """Whether no tensor holds NaN or infinity, in one pass over them and one look at the device."""
    return math.isfinite(float(get_total_norm(tensors, math.inf))) if tensors else True


@rank_zero_only
def say(text: str) -> None:
    """Print it once."""
    print(text, flush=True)
