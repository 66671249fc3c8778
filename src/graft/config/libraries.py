"""What W&B and Lightning refuse of values of the right type: they say so late, some of it after pretraining."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from graft.config.text import shown

LONGEST_TAG, LONGEST_PROJECT = 64, 128  # characters
NOT_IN_PROJECTS = "/\\#?%:"
DURATION = re.compile(r"\d+:\d\d:\d\d:\d\d")
DEVICES = re.compile(r"auto|-1|0*[1-9]\d*|\d+(,\d+)*,|\d+(,\d+)+")  # as text: a number of them, or a list of their own
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")
LIMITS = ("limit_train_batches", "limit_val_batches", "limit_test_batches")


def refusals(config: Mapping[str, Any]) -> Iterator[str]:
    """Values that a library does not take, each with what it does take."""
    wandb = (config.get("logger") or {}).get("wandb")
    if wandb and wandb["mode"] != "disabled":
        yield from wandb_refusals(config["tags"], wandb.get("project") or "")
    yield from trainer_refusals(config["trainer"])


def wandb_refusals(tags: list[str], project: str) -> Iterator[str]:
    """Tags and a project that W&B does not take."""
    for tag in tags:
        if not 0 < len(tag) <= LONGEST_TAG:
            yield f"`tags`: W&B takes tags of 1 to {LONGEST_TAG} characters, {tag!r} has {len(tag)}"
    if found := [sign for sign in NOT_IN_PROJECTS if sign in project]:
        yield f"`logger.wandb.project={project}`: W&B takes no {' or '.join(found)} in the name of a project"
    if len(project) > LONGEST_PROJECT:
        yield f"`logger.wandb.project={project}`: W&B takes {LONGEST_PROJECT} characters, these are {len(project)}"


def trainer_refusals(trainer: Mapping[str, Any]) -> Iterator[str]:
    """Values of `trainer` that Lightning does not take."""
    accelerator, devices, longest = trainer["accelerator"], trainer["devices"], trainer["max_time"]
    if accelerator not in ACCELERATORS:
        yield f"`trainer.accelerator={accelerator}`: must be {' or '.join(ACCELERATORS)}"
    if isinstance(devices, str) and not DEVICES.fullmatch(devices):
        yield f"`trainer.devices={devices}`: must be auto, a number of devices from 1 on, or a list as [0,1]"
    listed = devices.strip(",").split(",") if isinstance(devices, str) and "," in devices else devices
    if isinstance(listed, list):
        if len(set(map(str, listed))) < len(listed):
            yield f"`trainer.devices={shown(devices)}`: names a device twice"
        if accelerator == "cpu":
            yield f"`trainer.devices={shown(devices)}` with `trainer.accelerator=cpu`: a CPU has a number of processes"
    strategy = trainer["strategy"]
    if strategy.startswith("deepspeed"):
        yield (
            f"`trainer.strategy={strategy}`: DeepSpeed writes checkpoints in folders of its own, among which a run "
            "could select none; use trainer=fsdp, which shards the same, or trainer=ddp"
        )
    if strategy.startswith("fsdp_"):
        yield f"`trainer.strategy={strategy}`: FSDP2 is trainer=fsdp, and takes the place of Lightning's older kinds"
    if longest is not None and not DURATION.fullmatch(longest.strip()):
        yield f"`trainer.max_time={longest}`: must be days:hours:minutes:seconds, such as trainer.max_time=00:12:00:00"
    for key in LIMITS:
        if trainer[key] > 1 and trainer[key] % 1:
            yield f"`trainer.{key}={trainer[key]}`: must be a fraction up to 1.0, or a whole number of batches"
