"""The network that teaches: a finished run's, frozen, in eval mode."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graft import registry
from graft.backbones.outputs import features_of, first_of, kept_outputs
from graft.heads.base import seen_by
from graft.inputs.base import Inputs
from graft.model.folder import WEIGHTS
from graft.model.model import load
from graft.model.place import folder_of


@dataclass(frozen=True)
class Taught:
    """What a teacher says of a batch."""

    logits: Tensor  # (B, K) of its own head
    features: Tensor  # (B, D)
    maps: Mapping[str, Tensor]  # by the stages that were asked for


class RunTeacher:
    """The model of a run, sweep or model folder. It is in no state dict, and copies of what holds it share it.

    Raises GraftError where there is no model, or one that cannot be built here.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        folder = folder_of(Path(place))
        with torch.random.fork_rng(devices=()):  # the student begins with the weights that it has without a teacher
            self.model = load(folder, registry.trusted())
        self.backbone = self.model.backbone
        self.fingerprint = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()

    def __deepcopy__(self, memo: dict[int, Any]) -> "RunTeacher":
        return self

    @property
    def num_parameters(self) -> int:
        """Of backbone and head."""
        return sum(p.numel() for part in (self.backbone, self.model.head) for p in part.parameters())

    @torch.no_grad()
    def __call__(self, inputs: Inputs, stages: Sequence[str] = ()) -> Taught:
        """One forward of inputs in the teacher's own form, which is where they are."""
        self.model.to(inputs.device)
        modules = {stage: self.backbone.output_module(stage) for stage in stages}
        with kept_outputs(self.backbone, list(modules.values())) as outputs:
            seen = seen_by(self.model.head, self.backbone, self.model.as_weights(inputs))
        maps = {stage: first_of(outputs[module]) for stage, module in modules.items()}
        return Taught(self.model.head(seen), features_of(seen), maps)
