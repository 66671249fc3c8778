"""What a fit costs: samples a second, peak memory, seconds."""

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from graft.memory import peak_process_memory

MEASURED = ("fit_s", "train_s", "validation_s", "samples", "peak_memory_mb")


class Throughput(Callback):
    """Measures a fit; read its properties after it.

    Samples of all domains and processes over the wall time of training, data loading included, without validation and
    without the first batch, which warms up. A resumed run adds to what the checkpoint's run had measured.
    """

    def __init__(self) -> None:
        self._measured: dict[str, float] = dict.fromkeys(MEASURED, 0.0)
        self._restored = self._measured
        self._fit_started: float | None = None
        self._train_started: float | None = None
        self._validation_started: float | None = None
        self._warm = False

    @property
    def samples_per_s(self) -> float | None:
        """Samples per second of training; None where no second batch ran."""
        seconds = self._measured["train_s"]
        return self._measured["samples"] / seconds if seconds else None

    @property
    def peak_memory_mb(self) -> float | None:
        """Peak memory in MiB; None before a fit and where nobody knows."""
        return self._measured["peak_memory_mb"] or None

    @property
    def fit_s(self) -> float:
        """Seconds of the fit, all of it."""
        return self._measured["fit_s"]

    @property
    def train_s(self) -> float:
        """Seconds of it in training batches, without the first."""
        return self._measured["train_s"]

    @property
    def validation_s(self) -> float:
        """Seconds of it in validations."""
        return self._measured["validation_s"]

    def take_over(self, **measured: float) -> None:
        """Tell of a fit that was measured elsewhere; what is not named is 0."""
        self._measured = dict.fromkeys(MEASURED, 0.0) | measured

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock and forget earlier memory peaks."""
        self._measured = dict(self._restored)
        self._train_started, self._validation_started, self._warm = None, None, False
        self._device, self._world_size = pl_module.device, trainer.world_size
        reset_peak_memory(self._device)
        self._fit_started = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Time the epoch's batches."""
        self._go_on()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Go on after a validation inside an epoch."""
        if self._train_started is None:
            self._go_on()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch's samples."""
        if self._warm:
            self._measured["samples"] += self._world_size * sum(map(len, batch.values()))
        else:
            self._synchronize()
            self._warm = True
            self._go_on()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave validation out, and time it by itself."""
        self._pause()
        if self._fit_started is not None:
            self._validation_started = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop its clock."""
        if self._validation_started is not None:
            self._synchronize()
            self._measured["validation_s"] += time.perf_counter() - self._validation_started
            self._validation_started = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave what happens between epochs out."""
        self._pause()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the books."""
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the books on what an interrupted fit did."""
        self._stop()

    def state_dict(self) -> dict[str, float]:
        """Everything measured up to now."""
        now, state = time.perf_counter(), dict(self._measured)
        if self._fit_started is not None:
            state["fit_s"] += now - self._fit_started
            state["peak_memory_mb"] = max(state["peak_memory_mb"], peak_memory_mb(self._device))
        if self._train_started is not None:
            state["train_s"] += now - self._train_started
        return state

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Keep it for the next fit; testing a checkpoint restores callbacks too and must not touch the results."""
        self._restored = dict.fromkeys(MEASURED, 0.0) | state_dict

    def _go_on(self) -> None:
        if self._warm:
            self._train_started = time.perf_counter()

    def _pause(self) -> None:
        if self._train_started is not None:
            self._synchronize()
            self._measured["train_s"] += time.perf_counter() - self._train_started
            self._train_started = None

    def _stop(self) -> None:
        self._pause()
        self._measured = self.state_dict()
        self._fit_started = None

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak so far, so that a job of a sweep does not report an earlier job's; on Linux and GPUs only."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        with contextlib.suppress(OSError):  # some containers forbid it
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MiB: what tensors took on a GPU, what the process took on a CPU; 0 where nobody knows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return (peak_process_memory() or 0) / 2**20
