"""Features of a whole split by a backbone as it is, without a Trainer: from the cache that frozen runs share."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from pytorch_lightning.plugins.precision import Precision
from torch import Tensor

from graft.backbones.base import Backbone
from graft.backbones.split_backbone import FEATURES, SplitBackbone, eval_mode, weights_hash
from graft.cache.disk import DiskCache
from graft.cache.features import FeatureCache, Wanted
from graft.cache.rows import MappedRows
from graft.data.boxes import Boxes, padded_sizes
from graft.data.module import TransferDataModule
from graft.errors import GraftError
from graft.inputs.image.boxes import ShorterSide

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class FeatureSet:
    """What a backbone makes of a split, in the split's order."""

    features: Tensor  # (N, D)
    labels: Tensor | None  # None where unlabelled
    indices: Tensor  # (N,) in the split


@dataclass(frozen=True)
class Pass:
    """One pass over a split without augmentation, or over its `view`-th augmented version; how it is computed."""

    data: TransferDataModule
    domain: str
    split: str
    precision: Precision
    device: torch.device
    view: int | None = None
    shift: str | None = None  # under which the split is tested

    @property
    def samples(self) -> int:
        """How many there are."""
        return len(getattr(self.data.domains[self.domain], self.split))

    def wanted(self, cut: SplitBackbone, weights: str, also: Mapping[str, Any] = MappingProxyType({})) -> Wanted:
        """The activations at a cut whose weights have this hash, of inputs that depend on something `also`."""
        data = self.data
        depends_on = {
            "samples": getattr(data.domains[self.domain], self.split).fingerprint,
            "input": repr(cut.backbone.input_spec),
            # What is random in a view is drawn batch by batch.
            "view": None if self.view is None else [data.augment, str(data.seed), data.eval_batch_size, self.view],
            "precision": str(self.precision.precision),
            "device": self.device.type,
            **({} if self.shift is None else {"shift": self.shift}),
            **also,
        }
        return Wanted(cut, {**depends_on, "weights": weights}, data.parts(self.domain), self.scale(cut.backbone))

    def scale(self, backbone: Backbone) -> float:
        """Pixels of an image, the mean over those with boxes, over those of the backbone's own size; else 1."""
        labels = getattr(self.data.domains[self.domain], self.split).labels
        if not isinstance(labels, Boxes) or backbone.input_shape is None:
            return 1.0
        height, width = backbone.input_shape[-2:]
        sizes = padded_sizes(ShorterSide(min(height, width)).sizes(labels.original))
        return float(sizes.prod(1).float().mean()) / (height * width)

    def batches(self, sized: bool = False) -> Iterator[tuple[Tensor, Any]]:
        """Indices `(B,)` and inputs on the device, batch by batch; `sized`: images with their sizes."""
        parts = self.view is None  # what is random in a view is drawn batch by batch
        for batch in self.data.plain_batches(self.domain, self.split, self.view, shift=self.shift, parts=parts):
            assert batch.indices is not None
            inputs = self.moved(batch.inputs)
            yield batch.indices, (inputs, batch.sizes) if sized else inputs

    def moved(self, inputs: Any) -> Any:
        """Inputs as the backbone takes them, on the device."""
        return self.precision.convert_input(inputs).to(self.device)


def stored_features(one: Pass, backbone: Backbone, kept: FeatureCache) -> MappedRows | None:
    """Features of a pass's split, computed where the cache lacks them; None where the disk has no room for them."""
    cut = SplitBackbone(backbone, FEATURES)
    with eval_mode(backbone), torch.no_grad():
        wanted = one.wanted(cut, weights_hash(backbone, frozenset()))
        return kept.rows(wanted, [], one.batches, one.samples, one.precision.forward_context, one.domain, one.split)


def extract(backbone: Backbone, data: TransferDataModule, domain: str, split: str, cache: DiskCache) -> FeatureSet:
    """Features of a domain's `train`, `val` or `test` split, in full precision on the backbone's device.

    `data` knows the backbone's input, as that of `graft.assemble` does. A frozen run on the same data and device
    finds these features in the cache, and this those of the run. Raises GraftError for a domain or split without data.
    """
    if domain not in data.domains or split not in SPLITS:
        there = ", ".join(f"{domain} {split}" for domain in data.domains for split in SPLITS)
        raise GraftError(f"extract: there is no split {domain} {split}. Allowed: {there}.")
    one = Pass(data, domain, split, Precision(), next(backbone.parameters()).device)
    found = getattr(data.domains[domain], split)
    rows = stored_features(one, backbone, FeatureCache(cache))
    features = computed(SplitBackbone(backbone, FEATURES), one) if rows is None else rows[:]
    return FeatureSet(features, found.labels, torch.arange(len(found)))


def computed(cut: SplitBackbone, one: Pass) -> Tensor:
    """The features where the disk has no room for them."""
    features = torch.empty(one.samples, *cut.shape)
    with eval_mode(cut.backbone):
        for indices, inputs in one.batches():
            features[indices] = cut.trunk(inputs).cpu()
    return features
