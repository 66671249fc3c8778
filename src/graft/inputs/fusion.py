"""Samples of several modalities, what a fusion of backbones wants of them, and how they become one input."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graft.cache.disk import DiskCache
from graft.data.samples import Split, check_unchanged, rows_of, sha256, take
from graft.errors import GraftError
from graft.inputs.base import Fields, InputSpec, Prepared, Transform

PRESENT = "present"  # the field that says which modalities a sample has
AUGMENTED = ("image", "audio")  # modalities that augmentation changes


@dataclass(frozen=True)
class MultimodalRows:
    """By modality the samples of each, by index, and which of them are there `(N,)`; others are placeholders."""

    fields: Mapping[str, Any]
    present: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.present.values())))

    def __getitem__(self, indices: Tensor) -> "MultimodalRows":
        return MultimodalRows(
            {name: take(values, indices) for name, values in self.fields.items()},
            {name: there[indices] for name, there in self.present.items()},
        )


@dataclass(frozen=True)
class FusionSpec:
    """What each part of a fusion takes, by its modality, in the order of the parts."""

    parts: Mapping[str, InputSpec]

    def __str__(self) -> str:
        return "; ".join(f"{name}: {spec}" for name, spec in self.parts.items())

    def transform(self, augment: str = "none", shift: str | None = None) -> Any:
        """Samples of all these modalities; augmentation is that of images and sound."""
        return FusionTransform(self, augment, shift)


@dataclass(frozen=True)
class PreparedParts:
    """Prepared samples of each modality, and which are there `(N, M)`."""

    parts: Mapping[str, Prepared]
    present: Tensor

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, indices: Tensor) -> Any:
        return {name: one[indices] for name, one in self.parts.items()} | {PRESENT: self.present[indices]}

    @property
    def lengths(self) -> Tensor | None:
        """Lengths `(N,)` of the part that has some, by which batches are made."""
        found = (getattr(one, "lengths", None) for one in self.parts.values())
        return next((one for one in found if one is not None), None)

    @property
    def slow(self) -> bool:
        """Whether a part reads files whenever it is asked."""
        return any(getattr(one, "slow", False) for one in self.parts.values())


@dataclass(frozen=True)
class Augmentations:
    """What is random in some part."""

    parts: Sequence[Any]

    @property
    def slow(self) -> bool:
        """Whether worker processes are worth their while."""
        return any(one.slow for one in self.parts)


class FusionTransform:
    """Samples of several modalities to `Fields`: those of each part behind its name, and `present` `(B, M)`."""

    def __init__(self, spec: FusionSpec, augment: str = "none", shift: str | None = None) -> None:
        changed = [name for name in spec.parts if name in AUGMENTED]
        check_unchanged("samples without images or sound", "none" if changed else augment, None)
        check_unchanged("samples of several modalities", "none", shift)
        self.parts: dict[str, Transform] = {
            name: part.transform(augment if name in AUGMENTED else "none") for name, part in spec.parts.items()
        }
        random = [one.augment for one in self.parts.values() if one.augment is not None]
        self.augment = Augmentations(random) if random else None

    @property
    def key(self) -> str:
        """The keys of all parts."""
        return repr({name: one.key for name, one in self.parts.items()})

    def prepare(self, split: Split, cache: DiskCache | None) -> PreparedParts:
        """The split's samples of each modality. Raises GraftError for a part of which the data have none."""
        rows: MultimodalRows = rows_of(split)
        if missing := [name for name in self.parts if name not in rows.fields]:
            raise GraftError(
                f"backbone.parts.{missing[0]}: the data have no {missing[0]}, only {', '.join(rows.fields)}. Name its "
                f"column, or leave the part out: backbone.parts.{missing[0]}=null"
            )
        parts = {}
        for name, transform in self.parts.items():
            of_part = Split(rows.fields[name], None, sha256([split.fingerprint.encode(), name.encode()]))
            parts[name] = transform.prepare(of_part, cache)
        return PreparedParts(parts, torch.stack([rows.present[name] for name in self.parts], dim=1))

    def collate(self, samples: Mapping[str, Any]) -> Fields:
        """The inputs of every part under their names, `text.input_ids` or `image`."""
        tensors: dict[str, Tensor] = {}
        for name, transform in self.parts.items():
            tensors |= named(name, transform.collate(samples[name]))
        return Fields({**tensors, PRESENT: samples[PRESENT]})


def named(part: str, inputs: Tensor | Fields) -> dict[str, Tensor]:
    """A part's inputs as tensors of the whole."""
    if isinstance(inputs, Tensor):
        return {part: inputs}
    return {f"{part}.{name}": tensor for name, tensor in inputs.tensors.items()}


def inputs_of(part: str, inputs: Fields) -> Tensor | Fields:
    """A part's inputs out of those of the whole, as `named` put them there."""
    if part in inputs.tensors:
        return inputs[part]
    prefix = f"{part}."
    return Fields({name.removeprefix(prefix): one for name, one in inputs.tensors.items() if name.startswith(prefix)})
