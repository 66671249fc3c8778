"""What each stage of a backbone puts out for a split, averaged over places, and its features."""

from typing import Any

import torch
from torch import Tensor

from graft.backbones.base import Backbone
from graft.backbones.outputs import channels_first, kept_outputs
from graft.backbones.split_backbone import FEATURES, eval_mode
from graft.data.module import TransferDataModule
from graft.inputs.base import Fields
from graft.inputs.fusion import inputs_of

MASKS = ("attention_mask", "mask")  # fields that say which of a sequence's places count


def activations(backbone: Backbone, data: TransferDataModule, domain: str, split: str) -> dict[str, Tensor]:
    """By stage the mean over places `(N, C)` of what it puts out, and `features` `(N, D)`; float64, in split order.

    A stage that puts out no tensor is left out.
    """
    modules = {stage.name: backbone.output_module(stage.name) for stage in backbone.stages}
    indices, parts = [], []
    with eval_mode(backbone), torch.no_grad():
        for batch in data.plain_batches(domain, split):
            assert batch.indices is not None
            indices.append(batch.indices)
            with kept_outputs(backbone, list(modules.values())) as outputs:
                features = backbone(batch.inputs)
            found = {
                stage: pooled(outputs.get(module), inputs_at(stage, backbone, batch.inputs))
                for stage, module in modules.items()
            }
            parts.append({**{stage: one for stage, one in found.items() if one is not None}, FEATURES: features})
    order = torch.cat(indices).argsort()
    return {name: torch.cat([part[name] for part in parts])[order].double() for name in parts[0]}


def inputs_at(stage: str, backbone: Backbone, inputs: Any) -> Any:
    """What a stage sees places of: the inputs, of a fusion those of the stage's part."""
    part = stage.partition(".")[0]
    return inputs_of(part, inputs) if part in backbone.parts else inputs


def pooled(output: Any, inputs: Any) -> Tensor | None:
    """Mean `(B, C)` over the places of a stage's output, of sequences those that count; None for no tensor."""
    output = output[0] if isinstance(output, tuple) else output
    if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4):
        return None
    mask = (
        next((inputs[name] for name in MASKS if name in inputs.tensors), None) if isinstance(inputs, Fields) else None
    )
    if mask is not None and output.shape[:2] == mask.shape:
        weights = mask.unsqueeze(-1).to(output.dtype)
        return (output * weights).sum(1) / weights.sum(1).clamp(min=1)
    return channels_first(output).mean(2)
