"""One progress bar over a whole fit, refreshed by time so that a step costs nothing."""

import math
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from graft.config.types import NonNegative
from graft.errors import Interrupted
from graft.training.lightning import epochs_of

BAR_FORMAT = "{desc} |{bar:8}| {elapsed}<{remaining}{postfix}, {rate_fmt}"
SWEEP_LINE_EVERY_S = 120.0
COLUMNS = 100  # where a terminal does not tell its width


class Progress(ProgressBar):
    """Epoch, loss, a validation metric and the head's learning rate: a bar in a terminal, lines anywhere else.

    Between two refreshes a step only counts; values leave the device when they are shown. Away from a terminal a line
    is printed every `line_every_s` seconds at most, and one at the end. `metric` is a logged name such as
    `val/target/f1`; without it the first validation metric of the target is shown. `label` comes before the epoch.
    """

    def __init__(
        self, refresh_s: NonNegative = 0.2, line_every_s: NonNegative = 10.0, metric: str | None = None
    ) -> None:
        super().__init__()
        self.label = ""
        self._refresh_s = refresh_s
        self._line_every_s = line_every_s
        self._metric = metric
        self._enabled = True
        self._leave = True  # whether the last state stays on the screen
        self._bar: _Bar | None = None
        self._running = False
        self._due = math.inf
        self._done = 0
        self._outputs: Any = None

    def in_sweep(self) -> None:
        """Leave one line a job to the sweep: no last state stays, and only long jobs print lines meanwhile."""
        self._line_every_s = max(self._line_every_s, SWEEP_LINE_EVERY_S)
        self._leave = False

    def disable(self) -> None:
        """Stay silent; Lightning asks for it in every process but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show again."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar at the batch that a resumed run starts from."""
        if not self._enabled:
            return
        self._running = True
        self._done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        self._total = total_batches(trainer)
        self._started = time.monotonic()
        self._every_s = self._line_every_s
        if sys.stderr.isatty():
            self._every_s = self._refresh_s
            self._bar = _Bar(
                total=self._total, initial=self._done, bar_format=BAR_FORMAT, unit="batch", leave=self._leave
            )
        self._due = self._started + self._every_s

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch."""
        self._done += 1
        self._outputs = outputs
        self._show_if_due(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Stay alive through a long validation."""
        self._show_if_due(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the last state on the screen."""
        self._close(trainer, show=self._leave)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """End the line, so that a message after it starts on its own; after a real error no value is read any more."""
        self._close(trainer, show=isinstance(exception, Interrupted))

    def _show_if_due(self, trainer: pl.Trainer) -> None:
        if time.monotonic() >= self._due:
            self._show(trainer)

    def _show(self, trainer: pl.Trainer) -> None:
        epochs = epochs_of(trainer)
        title = f"epoch {min(trainer.current_epoch + 1, epochs)}/{epochs}" if epochs > 0 else "training"
        title = f"{self.label} {title}{' validating' if trainer.validating else ''}".strip()
        values = "  ".join(f"{name} {value:.3g}" for name, value in self._values(trainer).items())
        if self._bar is not None:
            self._bar.ncols = terminal_columns()
            self._bar.set_description_str(title, refresh=False)
            self._bar.set_postfix_str(values, refresh=False)
            self._bar.update(self._done - self._bar.n)
        else:
            seconds = time.monotonic() - self._started
            print(f"{title}  batch {self._done}/{self._total}  {values}  {seconds:.0f} s", file=sys.stderr, flush=True)
        self._due = time.monotonic() + self._every_s

    def _values(self, trainer: pl.Trainer) -> dict[str, float]:
        values: dict[str, float] = {}
        outputs = self._outputs
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None:
            values["loss"] = float(loss) * trainer.accumulate_grad_batches  # Lightning divides by it
        metrics = trainer.callback_metrics
        name = self._metric or main_metric(metrics)
        if name in metrics:
            values[name] = float(metrics[name])
        if trainer.optimizers:
            values["lr"] = float(trainer.optimizers[0].param_groups[-1]["lr"])
        return values

    def _close(self, trainer: pl.Trainer, show: bool) -> None:
        if not self._running:
            return
        if show:
            self._show(trainer)
        if self._bar is not None:
            self._bar.close()
        self._bar, self._running, self._due, self._outputs = None, False, math.inf, None


class _Bar(tqdm):
    """A tqdm that draws on every `update`, starts no monitor thread and trusts no terminal that claims to be empty."""

    monitor_interval = 0

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, mininterval=0, miniters=0, ncols=terminal_columns(), nrows=2)


def terminal_columns() -> int:
    """Width of the terminal behind stderr; some, as in containers, report 0."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or COLUMNS
    except OSError:
        return COLUMNS


def main_metric(metrics: Mapping[str, Any]) -> str | None:
    """Name of the first validation metric that is no loss, the target's before the source's; None without one."""
    names = [name for name in metrics if name.startswith("val/") and not name.endswith("/loss")]
    return next((name for name in names if name.startswith("val/target/")), names[0] if names else None)


def total_batches(trainer: pl.Trainer) -> int | None:
    """Training batches in the whole fit; None when nobody knows."""
    limits: list[float] = []
    epochs = epochs_of(trainer)
    if epochs > 0:
        limits.append(steps_of_federation(trainer, epochs) or trainer.num_training_batches * epochs)
    if trainer.max_steps != -1:
        limits.append(trainer.max_steps * trainer.accumulate_grad_batches)
    total = min(limits, default=math.inf)
    return None if math.isinf(total) else int(total)


def steps_of_federation(trainer: pl.Trainer, rounds: int) -> int | None:
    """Batches of a federation's rounds, which differ in length; None without one, or where the Trainer cuts them."""
    federation = getattr(getattr(trainer, "datamodule", None), "federation", None)
    whole = isinstance(trainer.limit_train_batches, float) and trainer.limit_train_batches == 1.0
    return federation.total_steps(rounds) if federation is not None and whole else None
