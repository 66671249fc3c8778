"""torch.compile of the backbone, with its costs and gains measured on the run's own first batch."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.seed import isolate_rng

from graft.errors import GraftError, first_line
from graft.inputs.base import Batch
from graft.module import TransferModule
from graft.strategies.base import Phase
from graft.training.lightning import epochs_of

REPEATS = 5  # steps of which the median is taken


class Compilation(Callback):
    """Compiles the backbone in place for a fit, and prints after how many steps that pays off.

    Names stay, so that checkpoints are those of an uncompiled run; deep copies are not compiled. Validation, batches of
    another size and each of a strategy's phases, which freezes other parameters, compile once more. Phases in which the
    whole backbone is frozen are left alone.
    """

    def __init__(self, backend: str = "inductor") -> None:
        self.backend = backend
        self.measured: dict[str, float | int | None] | None = None
        self._phase: Phase | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Compile at the first batch of the fit, and forget what was compiled for the phase before."""
        assert isinstance(pl_module, TransferModule)
        nothing_to_compile = pl_module.cut is not None  # the frozen backbone does not run, see FrozenFeatures
        if nothing_to_compile or (self._phase is not None and batch_idx):
            return
        phase = pl_module.phase(trainer.current_epoch)
        if self._phase is None:
            self.measured = self._compile(trainer, pl_module, batch)
            print(sentence(self.measured), flush=True)
        elif phase is not self._phase:
            torch.compiler.reset()  # torch gives up compiling what it has compiled too many times
        self._phase = phase

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave an ordinary backbone, which what comes after the fit may change."""
        assert isinstance(pl_module, TransferModule)
        self._undo(pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave an ordinary backbone also after an error."""
        assert isinstance(pl_module, TransferModule)
        self._undo(pl_module)

    def _undo(self, module: TransferModule) -> None:
        module.backbone._compiled_call_impl = None  # where nn.Module.compile keeps it; torch has no way back
        torch.compiler.reset()  # of a sweep's jobs each compiles its own backbone
        self._phase = None

    def _compile(self, trainer: pl.Trainer, module: TransferModule, batch: Batch) -> dict[str, float | int | None]:
        """Compile, with the run's weights, statistics and random numbers as before; what it took and brought."""
        backbone = module.backbone
        learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
        buffers = {name: buffer.clone() for name, buffer in backbone.named_buffers()}

        def step() -> None:
            with trainer.precision_plugin.forward_context():
                losses = module.domain_losses(batch, module.domain_outputs(batch))
                loss = module.objective(losses, module.progress)
            torch.autograd.grad(loss, learned, allow_unused=True)  # backward() would leave gradients

        with isolate_rng():
            seconds(step, module.device)  # warms up
            eager = median_seconds(step, module.device)
            backbone.compile(backend=self.backend)
            try:
                first = seconds(step, module.device)
            except Exception as error:  # the same step has just worked without
                raise GraftError(
                    f"training.compile=true: torch.compile fails on {backbone.name} ({first_line(error)}). It needs a "
                    "C++ compiler such as g++ on a CPU, Triton on a GPU. Set training.compile=false."
                ) from error
            compiled = median_seconds(step, module.device)
        with torch.no_grad():
            for name, buffer in backbone.named_buffers():
                buffer.copy_(buffers[name])
        return break_even(first - compiled, eager, compiled, trainer)


def break_even(cost: float, eager: float, compiled: float, trainer: pl.Trainer) -> dict[str, float | int | None]:
    """What is known about compiling, for results.json; `pays_off_after` is None where a step is not faster.

    Steps are batches, forward and backward; those of the run are what is left of it.
    """
    batches = int(trainer.num_training_batches)
    done = trainer.fit_loop.epoch_loop.total_batch_idx  # this one is still to come
    return {
        "compile_s": cost,
        "eager_ms": 1000 * eager,
        "compiled_ms": 1000 * compiled,
        "pays_off_after": math.ceil(cost / (eager - compiled)) if compiled < eager else None,
        "steps": batches * epochs_of(trainer) - done,
        "steps_per_epoch": batches,
    }


def sentence(measured: dict[str, Any]) -> str:
    """The break-even as text."""
    text = (
        f"torch.compile took {measured['compile_s']:.1f} s; forward and backward of a step take "
        f"{measured['compiled_ms']:.1f} ms instead of {measured['eager_ms']:.1f} ms: "
    )
    after, steps = measured["pays_off_after"], measured["steps"]
    if after is None:
        return text + "it does not pay off here."
    epochs = after / measured["steps_per_epoch"]
    return text + f"pays off after {after:,} steps ({epochs:.1f} epochs); this run has {steps:,}."


def seconds(step: Callable[[], None], device: torch.device) -> float:
    """Wall time of one call, until the device has finished."""
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def median_seconds(step: Callable[[], None], device: torch.device) -> float:
    """Median wall time of some calls."""
    return statistics.median(seconds(step, device) for _ in range(REPEATS))
