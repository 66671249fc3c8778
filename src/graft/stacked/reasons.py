"""Which jobs of a sweep can train together, as far as their configs say; read without torch."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from graft.config.conflicts.stream import is_stream
from graft.config.facts import attribute
from graft.config.text import leaves, shown

# Keys, or groups of them, in which jobs that train together may differ.
DIFFER = (
    *("seed", "data.seed", "data.subset_seed", "optimizer.lr", "optimizer.weight_decay", "scheduler", "objective"),
    *("paths.run_dir", "tags", "notes"),
)
# What these keys have to be: anything else changes a step, ends a job earlier, or needs what only a Trainer has.
NEEDED: Mapping[str, tuple[Any, ...]] = {
    "tune": (None,),
    "soup": (None,),
    "resume": (None, False, "auto"),
    "cache.features": (True,),
    "data.augment": ("none",),
    "data.target_setting": ("supervised", "unsupervised"),
    "training.patience": (None,),
    "training.gradient_clip_norm": (None,),
    "training.weight_clip": (None,),
    "training.accumulate_batches": (1,),
    "training.compile": (False,),
    "training.mixup_alpha": (None,),
    "training.cutmix_alpha": (None,),
    "training.progressive_resizing.initial_scale": (None,),
    "training.wise_ft_alphas": (None,),
    "head.grow": (None, False),
    "save.ledger": (None,),
    "trainer.accelerator": ("auto", "cpu"),
    "trainer.devices": (1,),
    "trainer.num_nodes": (1,),
    "trainer.strategy": ("auto",),
    "trainer.precision": ("auto", "32-true", "64-true", "32", "64", 32, 64),
    "trainer.detect_anomaly": (False,),
    "trainer.profiler": (None,),
    "trainer.max_time": (None,),
    "trainer.limit_train_batches": (1.0,),
    "trainer.limit_val_batches": (1.0,),
    "trainer.limit_test_batches": (1.0,),
}
OPTIMIZERS = {
    "torch.optim.SGD": ("momentum", "dampening", "nesterov", "foreach", "fused"),
    "torch.optim.Adam": ("betas", "eps", "foreach", "fused"),
    "torch.optim.AdamW": ("betas", "eps", "foreach", "fused"),
}
CALLBACKS = ("progress", "interrupt")  # that a fit without a Trainer does without, or has its own of


def key_of(config: Mapping[str, Any]) -> str:
    """Equal for jobs that differ only where those that train together may."""
    same = {
        key: value
        for key, value in leaves(config)
        if not any(key == one or key.startswith(f"{one}.") for one in DIFFER)
    }
    return json.dumps(same, sort_keys=True, default=str)


def why_alone(config: Mapping[str, Any]) -> str | None:
    """Why a job trains alone, as the key that says so; None where its config leaves it open."""
    return next(reasons(config), None)


def reasons(config: Mapping[str, Any]) -> Iterator[str]:
    """The same, all of them."""
    values = dict(leaves(config))
    strategy, optimizer, selection = config["strategy"], config["optimizer"], config["selection"]
    if attribute(strategy["_target_"], "trains_backbone", True):
        yield f"strategy={strategy['_target_'].split('.')[-2]} trains the backbone"
    if "parts" in config["backbone"]:
        yield "backbone.parts: a fusion trains behind frozen parts"
    if any(attribute(strategy["_target_"], name, False) for name in ("closed_fit", "trains_nothing")):
        yield f"strategy={strategy['_target_'].split('.')[-2]} takes no steps"
    if any(is_stream(config["data"].get(side)) for side in ("target", "source")):
        yield "data.target or data.source is a stream"
    if strategy.get("train_bn") is True:
        yield "strategy.train_bn=true trains BatchNorm"
    for key, allowed in NEEDED.items():
        value = values.get(key)
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
            yield f"{key}={shown(value)}"
    if isinstance(values["trainer.limit_train_batches"], int) or isinstance(values["trainer.limit_val_batches"], int):
        yield "trainer.limit_..._batches=1 is one batch"
    found_by_job = ("optimizer.lr", "data.batch_size", "backbone.layer")
    yield from (f"{key}=auto" for key in found_by_job if values.get(key) == "auto")
    yield from (f"term={name}" for name, term in (config.get("term") or {}).items() if term)
    yield from (f"callbacks.{name}" for name, one in config["callbacks"].items() if one and name not in CALLBACKS)
    if config["averaging"]:
        yield f"averaging={config['averaging']['_target_'].rpartition('.')[2]}"
    if config.get("federated"):
        yield f"federated={config['federated']['_target_'].split('.')[-2]}"
    if config["compress"]:
        yield f"compress={config['compress']['_target_'].split('.')[-2]}"
    if optimizer["_target_"] not in OPTIMIZERS:
        yield f"optimizer={optimizer['_target_']}"
    else:
        taken = OPTIMIZERS[optimizer["_target_"]]
        yield from (f"optimizer.options.{name}" for name in optimizer["options"] if name not in taken)
    if attribute(config["scheduler"]["_target_"], "follows_metric", False):
        yield "a scheduler that follows a metric"
    if attribute(selection["_target_"], "holds_out", False):
        yield f"selection={selection['_target_'].split('.')[-2]}"
