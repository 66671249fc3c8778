"""Lightning's Trainer with Graft's settings, for the source's pretraining and the target's training alike."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger


def quieten_lightning() -> None:
    """Leave out what Lightning says about itself at every start, and advice that the config has already answered."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers",
        "The number of training batches",
        ".*LeafSpec.* is deprecated",
    ):
        warnings.filterwarnings("ignore", message)


def build_trainer(
    settings: Mapping[str, Any],
    training: Mapping[str, Any],
    epochs: int,
    folder: Path,
    loggers: Sequence[Logger],
    callbacks: Sequence[Callback],
) -> pl.Trainer:
    """Trainer from `trainer` and `training` keys; our samplers know about processes, so Lightning leaves them alone."""
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
    return pl.Trainer(**options, logger=list(loggers), callbacks=list(callbacks))
