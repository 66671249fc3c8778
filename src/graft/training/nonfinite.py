"""What there is to say of a value that is not finite: when, at which rate, in which part of the loss, on which samples.

A training batch is a function of (seed, epoch, step), so that it is not kept but drawn again.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torch.distributed.tensor import DTensor

from graft.data.samples import names_of
from graft.errors import listed
from graft.inputs.base import Batch, DomainBatch, Fields, Inputs
from graft.module import TransferModule
from graft.runs.folder import NONFINITE_BATCH
from graft.training.lightning import data_of

SHOWN = 5  # names in a message


class TrainedStep(NamedTuple):
    """A training batch; its loss and what that was made of stay on the device."""

    number: int  # of its optimizer step, from 1
    epoch: int  # from 0
    batch: int  # in the epoch, from 0
    lr: float  # of the head
    loss: Tensor
    parts: dict[str, Tensor]


def training_report(
    trainer: pl.Trainer, module: TransferModule, value: str, steps: Sequence[TrainedStep], rank: int, folder: Path
) -> dict[str, Any]:
    """Of the last of `steps`, in which the `value` (loss, gradients or weights) of process `rank` was not finite.

    Its batch is saved, with that of the step before: what is wrong with a batch's gradients shows in the next loss.
    """
    step = steps[-1]
    losses = {name: float(part) for name, part in ({"loss": step.loss} | step.parts).items()}
    losses = trainer.strategy.broadcast(losses, src=rank) if trainer.world_size > 1 else losses
    drawn = [data_of(trainer).train_batch(each.epoch, each.batch, rank) for each in steps]
    blamed = [name for name in drawn[-1] if not math.isfinite(losses.get(name, 0.0))] or [*drawn[-1]]
    names: dict[str, list[str]] = {}
    problems: list[str] = []
    largest: list[tuple[float, str]] = []
    for batches in reversed(drawn):  # the step's own batch first
        for domain, batch in batches.items():
            if domain in blamed:
                called, inputs = names_in(trainer, domain, "train", batch), batch.inputs
                names.setdefault(domain, called)
                problems += [f"{domain} {line}" for line in not_finite(inputs, called)]
                largest.append(largest_of(inputs, called))
    save_batches(folder / NONFINITE_BATCH, trainer, steps, drawn, losses)
    what = {
        "loss": f"the training loss is {losses['loss']:g} at",
        "gradients": "gradients are not finite at",
        "weights": f"weights are not finite ({listed(bad_weights(module), SHOWN)}) after",
    }[value]
    parts = {name: part for name, part in losses.items() if name != "loss"}
    lines = [
        f"{what} {place_of(trainer, step)}",
        f"  losses: {', '.join(f'{name} {part:g}' for name, part in parts.items())}",
        *(f"  {domain} batch: {listed(called, SHOWN)}" for domain, called in names.items()),
        inputs_line(list(dict.fromkeys(problems)), largest),
        f"  The batch, and the one before it, are in {folder / NONFINITE_BATCH}",
    ]
    return {
        "value": value,
        "step": step.number,
        "epoch": step.epoch,
        "batch": step.batch,
        "lr": step.lr,
        "losses": {name: part if math.isfinite(part) else str(part) for name, part in losses.items()},
        "samples": names,
        "inputs": problems,
        "message": "\n".join(lines),
    }


def validation_report(
    trainer: pl.Trainer, module: TransferModule, losses: Mapping[str, float], step: TrainedStep
) -> dict[str, Any]:
    """Of validation losses that are not finite while the weights are, with the samples whose outputs are not."""
    names: dict[str, list[str]] = {}
    problems: list[str] = []
    largest: list[tuple[float, str]] = []
    for domain in dict.fromkeys(name.split("/")[1] for name in losses):
        found: list[str] = []
        for batch in data_of(trainer).plain_batches(domain, "val"):
            called, inputs = names_in(trainer, domain, "val", batch), batch.inputs
            problems += [f"{domain} {line}" for line in not_finite(inputs, called)]
            largest.append(largest_of(inputs, called))
            finite = outputs_of(trainer, module, inputs, domain).isfinite().flatten(1).all(1)
            found += [called[index] for index in (~finite).nonzero().flatten().tolist()]
        names[domain] = found
    shown = ", ".join(f"{name} is {value:g}" for name, value in losses.items())
    lines = [
        f"{shown} with finite weights, after {place_of(trainer, step)}",
        *(
            f"  {domain} samples with outputs that are not finite: {listed(f, SHOWN)}"
            for domain, f in names.items()
            if f
        ),
        inputs_line(problems, largest),
    ]
    return {
        "value": "validation loss",
        "step": step.number,
        "epoch": step.epoch,
        "batch": step.batch,
        "lr": step.lr,
        "losses": {name: str(value) for name, value in losses.items()},
        "samples": names,
        "inputs": problems,
        "message": "\n".join(lines),
    }


@torch.no_grad()
def outputs_of(trainer: pl.Trainer, module: TransferModule, inputs: Inputs, domain: str) -> Tensor:
    """Predictions `(B, K)` as in validation."""
    was_training = module.training
    module.eval()
    with trainer.precision_plugin.forward_context():
        outputs = module(trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(inputs)), domain)
    module.train(was_training)
    return outputs


def advice(trainer: pl.Trainer, module: TransferModule, report: Mapping[str, Any], prefix: str = "") -> str:
    """What to do, as overrides; those of the optimizer are below `prefix`."""
    if report["inputs"]:
        return "What to do: mend or remove the samples whose inputs are not finite."
    rate = module.optimizer_config["lr"]
    search = "" if prefix else "; tune=lr looks for one"
    tries = [f"a lower rate ({prefix}optimizer.lr={rate / 10:g}{search})"]
    if not trainer.gradient_clip_val:
        tries.append("clipping (training.gradient_clip_norm=1.0)")
    if "16" in str(trainer.precision) and "bf16" not in str(trainer.precision):
        tries.append("more range (trainer.precision=32-true)")
    return f"What to do: {', '.join(tries)}, or look at the samples."


def bad_weights(module: TransferModule) -> list[str]:
    """Names of the parameters and BatchNorm statistics that are not finite."""
    return [name for name, tensor in weights_of(module).items() if not bool(tensor.isfinite().all())]


def weights_of(module: TransferModule) -> dict[str, Tensor]:
    """What has to be finite: parameters that train, and BatchNorm statistics; other buffers may mask with infinity.

    Of parameters in shards those of this process.
    """
    weights = {name: parameter.detach() for name, parameter in module.named_parameters() if parameter.requires_grad}
    weights = {name: one.to_local() if isinstance(one, DTensor) else one for name, one in weights.items()}
    weights |= {name: b for name, b in module.named_buffers() if name.endswith(("running_mean", "running_var"))}
    return {name: tensor for name, tensor in weights.items() if tensor.numel()}


def names_in(trainer: pl.Trainer, domain: str, split_name: str, batch: DomainBatch) -> list[str]:
    """What messages call a batch's samples."""
    assert batch.indices is not None
    return names_of(getattr(data_of(trainer).domains[domain], split_name), batch.indices)


def not_finite(inputs: Inputs, names: Sequence[str]) -> list[str]:
    """A line for each sample whose inputs hold NaN or infinite values."""
    lines = []
    for values in floats_of(inputs):
        counts = (~values.isfinite()).sum(1)
        lines += [f"{names[i]}: {counts[i]:,} of {values.shape[1]:,} values" for i in counts.nonzero().flatten()]
    return lines


def largest_of(inputs: Inputs, names: Sequence[str]) -> tuple[float, str]:
    """The largest finite input by size, and whose it is."""
    found = [(0.0, "")]
    for values in floats_of(inputs):
        sizes = values.abs().nan_to_num(0, 0, 0).amax(1)
        found.append((float(sizes.max()), names[int(sizes.argmax())]))
    return max(found)


def floats_of(inputs: Inputs) -> list[Tensor]:
    """The tensors of floats, `(B, n)` each."""
    tensors = inputs.tensors.values() if isinstance(inputs, Fields) else [inputs]
    return [tensor.flatten(1) for tensor in tensors if tensor.is_floating_point() and tensor.numel()]


def inputs_line(problems: Sequence[str], largest: Sequence[tuple[float, str]]) -> str:
    """What is wrong with the inputs, in a line."""
    if problems:
        return f"  inputs that are NaN or infinite: {listed(problems, SHOWN)}"
    size, name = max(largest, default=(0.0, ""))
    return "  inputs are finite" + (f", the largest is {size:.3g} in size ({name})" if name else "")


def place_of(trainer: pl.Trainer, step: TrainedStep) -> str:
    """When it was, and how fast the head learned."""
    where = f"epoch {step.epoch + 1} of {trainer.max_epochs}, batch {step.batch + 1}"
    return f"step {step.number} ({where}), learning rate {step.lr:g}"


@rank_zero_only
def save_batches(
    file: Path,
    trainer: pl.Trainer,
    steps: Sequence[TrainedStep],
    drawn: Sequence[Batch],
    losses: Mapping[str, float],
) -> None:
    """Write the batches as plain containers, `torch.load(file, weights_only=True)` reads them; the last is the bad one.

    Inputs are those before what `training` does to a batch, such as MixUp.
    """
    saved: list[dict[str, Any]] = []
    for step, batches in zip(steps, drawn, strict=True):
        domains = {}
        for domain, batch in batches.items():
            inputs = batch.inputs
            domains[domain] = {
                "indices": batch.indices,
                "names": names_in(trainer, domain, "train", batch),
                "inputs": dict(inputs.tensors) if isinstance(inputs, Fields) else inputs,
                "labels": batch.labels,
            }
        where = {"step": step.number, "epoch": step.epoch, "batch": step.batch, "lr": step.lr}
        saved.append(where | {"domains": domains})
    torch.save({"losses": dict(losses), "batches": saved}, file)
