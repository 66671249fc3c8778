"""Lightning's Trainer with Graft's settings, for the source's pretraining and the target's training alike."""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import pytorch_lightning as pl
import torch
from annotated_types import Interval, MinLen
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from graft.config.types import Auto, Count, Fraction, FractionBelowOne, Natural, Positive
from graft.errors import GraftError, first_line
from graft.files import written_whole
from graft.notes import say_once
from graft.runs.folder import LAST_CHECKPOINT, PREVIOUS
from graft.training.sharding import FullySharded

Precision = (
    Literal["auto", "32-true", "16-mixed", "bf16-mixed", "64-true", "16-true", "bf16-true"]
    | Literal["transformer-engine", "transformer-engine-float16", "16", "32", "64", "bf16"]
)
BelowOne = Annotated[float, Interval(gt=0, lt=1)]


class TrainerSettings(TypedDict):
    """The keys of `trainer`: arguments of Lightning's Trainer."""

    accelerator: str
    devices: Auto | Literal[-1] | Count | str | Annotated[Sequence[Natural], MinLen(1)]
    num_nodes: Count
    strategy: str
    precision: Precision | Literal[16, 32, 64]
    sync_batchnorm: bool
    deterministic: Literal["warn"] | bool
    detect_anomaly: bool
    profiler: Literal["simple", "advanced", "pytorch"] | None
    max_time: str | None
    limit_train_batches: Positive
    limit_val_batches: Positive
    limit_test_batches: Positive


class ProgressiveResizing(TypedDict):
    """The keys of `training.progressive_resizing`."""

    initial_scale: BelowOne | None
    growth_begins: FractionBelowOne
    full_size_at: Annotated[float, Interval(gt=0, le=1)]


class TrainingSettings(TypedDict):
    """The keys of `training`."""

    epochs: Count
    patience: Count | None
    gradient_clip_norm: Positive | None
    weight_clip: Positive | None
    accumulate_batches: Count
    channels_last: bool
    compile: bool
    gradient_checkpointing: bool
    mixup_alpha: Positive | None
    cutmix_alpha: Positive | None
    stochastic_depth: FractionBelowOne | None
    progressive_resizing: ProgressiveResizing
    validate_every_epochs: Count
    log_every_steps: Count
    recalibrate_bn: Auto | None
    on_nonfinite: Literal["stop", "skip", "continue"]
    threads: Count | None
    wise_ft_alphas: Annotated[Sequence[Fraction], MinLen(1)] | None


def quieten_lightning() -> None:
    """Leave out what Lightning says about itself at every start, and advice that the config has already answered."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers",
        "The number of training batches",
        ".*LeafSpec.* is deprecated",
        "Total length of .* across ranks is zero",  # of validation, where nothing is left for it
    ):
        warnings.filterwarnings("ignore", message)


def check_accelerator(accelerator: str) -> None:
    """GraftError where a GPU is asked for and torch sees none."""
    if accelerator not in ("gpu", "cuda", "mps") or device_type(accelerator) != "cpu":
        return
    built = torch.version.cuda or torch.version.hip
    why = (
        f"torch {torch.__version__} is built for GPUs but sees none (driver? CUDA_VISIBLE_DEVICES?)"
        if built
        else f"torch {torch.__version__} is built without support for GPUs"
    )
    raise GraftError(
        f"`trainer.accelerator={accelerator}`: there is no GPU here; {why}. "
        "Use trainer=auto (a GPU where there is one) or trainer=cpu."
    )


def device_type(accelerator: str) -> str:
    """cpu, cuda or mps: where a Trainer with this accelerator computes."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    return "mps" if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available() else "cpu"


def own_device(settings: Mapping[str, Any]) -> int | list[int]:
    """`trainer.devices` for this process alone: one of those that all processes of this machine have."""
    local = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
    if isinstance(settings["devices"], list):
        return [settings["devices"][local]]
    return [local] if local and device_type(settings["accelerator"]) == "cuda" else 1


def first_device(settings: Mapping[str, Any]) -> torch.device:
    """The device of the main process of a Trainer with these keys."""
    kind, devices = device_type(settings["accelerator"]), settings["devices"]
    index = devices[0] if isinstance(devices, list) else 0
    return torch.device(kind) if kind != "cuda" else torch.device(kind, index)


BF16_ON_CPU = (
    "trainer.precision: bfloat16 on a CPU. Without matrix units for it (AMX) a step is many times slower, and "
    "PyTorch's gradients of a strided convolution are wrong there where its maps are one pixel large: look at larger "
    "images, or compare with trainer.precision=32-true."
)


def resolve_precision(settings: Mapping[str, Any]) -> str:
    """What `trainer.precision` means on this machine; `auto` is the fastest that trains as well as 32 bits.

    On CUDA bfloat16 where the GPU computes with it, else float16, and TF32 for what stays in 32 bits. On a CPU always
    32 bits: bfloat16 is fast on few of them, and the same command should say the same on all.
    """
    precision, device = str(settings["precision"]), device_type(settings["accelerator"])
    cuda = device == "cuda"
    torch.set_float32_matmul_precision("high" if cuda and precision == "auto" else "highest")
    if precision in ("16", "16-mixed") and device == "cpu":
        precision = "bf16-mixed"  # as Lightning does: a CPU has no mixed float16
    if precision.startswith("bf16") and device == "cpu":
        say_once(BF16_ON_CPU)
    if precision != "auto":
        return precision
    if cuda:
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    return "32-true"


class CheckpointFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there; Lightning's own makes a copy in memory before.

    The last.ckpt before stays as previous.ckpt: a disk that loses power may tear even what it said was written.
    """

    def __init__(self) -> None:
        super().__init__()
        self._whole: Path | None = None  # the last file that was written or read here

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read it, and remember that it can be read."""
        content = super().load_checkpoint(path, *args, **kwargs)
        self._whole = Path(path)
        return content

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write it whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name == LAST_CHECKPOINT.name and path == self._whole:
            previous = path.with_name(PREVIOUS)
            previous.unlink(missing_ok=True)
            with suppress(OSError):  # a file system without hard links keeps none
                previous.hardlink_to(path)
        try:
            with written_whole(path, path.with_name(f"{path.name}.unfinished")) as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:  # what torch makes of the error of a disk
            raise_disk_error(error, path)
            raise
        if path.name == LAST_CHECKPOINT.name:
            self._whole = path


def raise_disk_error(error: BaseException, path: Path) -> None:
    """Raise the OSError behind another one, such as a full disk's."""
    behind = error.__context__ or error.__cause__
    if isinstance(behind, OSError):
        raise OSError(behind.errno, behind.strerror, str(path)) from None


def build_trainer(
    settings: Mapping[str, Any],
    training: Mapping[str, Any],
    epochs: int,
    folder: Path,
    loggers: Sequence[Logger],
    callbacks: Sequence[Callback],
    *,
    alone: bool = False,
) -> pl.Trainer:
    """Trainer from `trainer` and `training` keys; our samplers know about processes, so Lightning leaves them alone.

    `alone` is for one process, whatever launched others beside it.
    """
    quieten_lightning()
    options = {
        "max_epochs": epochs,
        "gradient_clip_val": training["gradient_clip_norm"],
        "accumulate_grad_batches": training["accumulate_batches"],
        "check_val_every_n_epoch": min(training["validate_every_epochs"], epochs),
        "log_every_n_steps": training["log_every_steps"],
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "enable_checkpointing": any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks),
        "enable_progress_bar": any(isinstance(c, pl.callbacks.ProgressBar) for c in callbacks),
        "default_root_dir": str(folder),
    }
    options |= dict(settings)
    devices = options.get("devices")
    several = (isinstance(devices, int) and devices > 1) or (isinstance(devices, list) and len(devices) > 1)
    if options.get("strategy") == "auto" and (several or options.get("num_nodes", 1) > 1):
        options["strategy"] = "ddp_find_unused_parameters_true"  # as in trainer=ddp: strategies freeze parts
    plugins: list[Any] = []
    if options.get("strategy", "auto").startswith(("auto", "ddp", "fsdp")):  # others shard what they write
        plugins.append(CheckpointFiles())
    if options.get("strategy") == "fsdp":
        # What is gathered first in inference mode could not train.
        options |= {"strategy": FullySharded(), "inference_mode": False}
    if alone:
        plugins.append(LightningEnvironment())
    elif SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        # Lightning's own answer to SIGUSR1 writes another checkpoint, which only it goes on from.
        plugins.append(SLURMEnvironment(auto_requeue=False))
    options["plugins"] = plugins
    try:
        return pl.Trainer(**options, logger=list(loggers), callbacks=list(callbacks))
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise GraftError(f"`trainer`: Lightning takes no such settings: {first_line(error)}") from error
