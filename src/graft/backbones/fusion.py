"""A fusion of backbones: one for each modality of a sample, and what makes one vector of their features."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from graft.backbones.base import Backbone, Stage
from graft.backbones.fusing import METHODS, Fusing
from graft.backbones.fusion_split import FusionSplit, split_parts
from graft.config.types import Count, FractionBelowOne, Given
from graft.errors import GraftError
from graft.inputs.base import Fields
from graft.inputs.fusion import PRESENT, FusionSpec, inputs_of, named
from graft.weights.files import BackboneSettings

FUSION = "fusion"  # the stage behind the parts


class FusionNetwork(nn.Module):
    """The parts by modality, and the fusion of their features."""

    def __init__(self, parts: Mapping[str, Backbone], fusion: Fusing) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.fusion = fusion

    def forward(self, inputs: Fields) -> Tensor:
        """Features `(B, D)` of inputs of every part."""
        features = {name: part(inputs_of(name, inputs)) for name, part in self.parts.items()}
        return self.fusion(features, inputs[PRESENT])


class Fusion(Backbone):
    """Inputs of several modalities to one vector; `parts` are backbones by modality, of which null is none.

    `freeze` names parts that never train, whatever the strategy. `method` and `width` are those of
    `graft.backbones.fusing`. A stage is one of a part, `text.layer6`; stages of all parts are ordered by how far they
    are on the way to the features, and `fusion` comes last.
    """

    modality = "multimodal"
    named_inputs = True

    def __init__(
        self,
        parts: Mapping[str, BackboneSettings | None],
        method: Literal["late", "gated", "average"] = "late",
        width: Count = 128,
        modality_dropout: FractionBelowOne = 0.0,
        freeze: Sequence[Literal["text", "image", "audio", "table"]] = (),
        name: str = "fusion",
        part_weights: Given = None,  # type: ignore[assignment]
    ) -> None:
        """`part_weights` are those of each part, by its name."""
        built = {name: cast(Backbone, part) for name, part in parts.items() if part is not None}
        check_parts(built, freeze)
        sizes = {name: part.feature_size for name, part in built.items()}
        network = FusionNetwork(built, METHODS[method](sizes, width, modality_dropout))
        stages = [*stages_of(built), Stage(FUSION, ("network.fusion",))]
        super().__init__(name, network, feature_size=network.fusion.feature_size, stages=stages)
        self.parts = built
        self.method = method
        self.part_weights: Mapping[str, str | None] = part_weights or {}
        self.fixed_stages = tuple(stage.name for stage in stages if stage.name.partition(".")[0] in freeze)
        self._removed: str | None = None

    def forward(self, x: Fields) -> Tensor:
        """Features `(B, D)`."""
        return self.network(self._as_present(x))

    def _as_present(self, x: Fields) -> Fields:
        """The inputs without a modality that is removed for now."""
        if self._removed is None:
            return x
        return Fields({**x.tensors, PRESENT: self.without_removed(x[PRESENT])})

    def without_removed(self, present: Tensor) -> Tensor:
        """Which modalities `(B, M)` are there, without one that is removed for now."""
        if self._removed is None:
            return present
        there = torch.tensor([name != self._removed for name in self.parts], device=present.device)
        return present & there

    @property
    def fusing(self) -> Fusing:
        """What makes one vector of the parts' features."""
        return cast(FusionNetwork, self.network).fusion

    @contextmanager
    def removed(self, part: str) -> Iterator[None]:
        """Inside the block a modality counts as missing in every sample."""
        self._removed = part
        try:
            yield
        finally:
            self._removed = None

    @property
    def input_spec(self) -> FusionSpec:
        """Those of the parts."""
        return FusionSpec({name: part.input_spec for name, part in self.parts.items()})

    def example_inputs(self, samples: int = 2) -> Fields:
        """Those of the parts, all of them there."""
        tensors: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            tensors |= named(name, part.example_inputs(samples))
        device = next(self.parameters()).device
        return Fields({**tensors, PRESENT: torch.ones(samples, len(self.parts), dtype=torch.bool, device=device)})

    def own_split(self, active: frozenset[str]) -> FusionSplit | None:
        """Behind the parts of which no module is active; None where there is none, or the others cannot be packed."""
        return split_parts(self, active)

    def weights_loaded(self) -> None:
        """Parts that came with weights are pretrained now, and nothing else is: it trains under every strategy."""
        new = [FUSION, *(name for name in self.parts if self.part_weights.get(name) is None)]
        self.new_stages = tuple(stage.name for stage in self.stages if stage.name.partition(".")[0] in new)

    def save_files(self, folder: Path) -> dict[str, str]:
        """Those of the parts, each in a folder of its own."""
        files: dict[str, str] = {}
        for name, part in self.parts.items():
            (folder / name).mkdir(exist_ok=True)
            found = part.save_files(folder / name)
            files |= {f"parts.{name}.{argument}": f"{name}/{file}" for argument, file in found.items()}
            if not found:
                (folder / name).rmdir()
        return files


def check_parts(parts: Mapping[str, Any], freeze: Sequence[str]) -> None:
    """Raise GraftError for parts that are none, or not of their modality, and for frozen ones that are not there."""
    if not parts:
        raise GraftError("backbone.parts: a fusion needs one part at least, such as backbone@backbone.parts.text=bert")
    for name, part in parts.items():
        if not isinstance(part, Backbone):
            raise GraftError(
                f"backbone.parts.{name}: it is a {type(part).__name__}, and a part has to be a subclass of "
                "graft.backbones.base.Backbone; see docs/extend/backbone.md."
            )
        if part.modality != name:
            raise GraftError(
                f"backbone.parts.{name}: {part.name} takes {part.modality} inputs. Choose a backbone for {name} "
                f"inputs: backbone@backbone.parts.{name}=<option>, or move it to backbone.parts.{part.modality}."
            )
    if wrong := [name for name in freeze if name not in parts]:
        raise GraftError(f"backbone.freeze=[{wrong[0]}]: there is no such part. Parts: {', '.join(parts)}.")


def stages_of(parts: Mapping[str, Backbone]) -> list[Stage]:
    """The stages of all parts from input to output: those that are as far on the way stand beside each other."""
    placed = []
    for place, (name, part) in enumerate(parts.items()):
        for number, stage in enumerate(part.stages, start=1):
            prefixes = tuple(f"network.parts.{name}.{prefix}" for prefix in stage.prefixes)
            placed.append((number / len(part.stages), place, Stage(f"{name}.{stage.name}", prefixes)))
    return [stage for _, _, stage in sorted(placed, key=lambda one: one[:2])]
