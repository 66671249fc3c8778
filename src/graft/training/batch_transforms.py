"""What happens to a training batch before the network sees it: progressive resizing, MixUp and CutMix."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import resize

from graft.backbones.base import Backbone
from graft.backbones.stages import output_shape
from graft.errors import GraftError, first_line
from graft.inputs.base import Batch, DomainBatch
from graft.tasks.base import Task

# A batch and its epoch (from 0) to the batch that trains. What is random comes from torch's global generator, which the
# module seeds for every step.
BatchTransform = Callable[[Batch, int], Batch]
MULTIPLE = 4  # pixels; the sides of smaller images are multiples of it


class ProgressiveResizing:
    """Images that begin small and grow to full size: early epochs cost less (fastai; Mosaic ML's recipe).

    Sides are `initial_scale` of the full ones, grow linearly between two fractions of the epochs, and are full from
    `full_size_at` on, in any case in the last epoch. The size is a function of the epoch alone.
    """

    def __init__(
        self, epochs: int, initial_scale: float, growth_begins: float = 0.5, full_size_at: float = 0.8
    ) -> None:
        self.epochs = epochs
        self.initial_scale = initial_scale
        self.growth_begins = growth_begins
        self.full_size_at = full_size_at

    def __call__(self, batch: Batch, epoch: int) -> Batch:
        """The batch with images `(B, C, H, W)` of the epoch's size."""
        return {
            domain: replace(
                one,
                inputs=self.resize(one.inputs, epoch),
                views={name: self.resize(view, epoch) for name, view in one.views.items()},
            )
            for domain, one in batch.items()
        }

    def resize(self, images: Any, epoch: int) -> Tensor:
        """Images `(B, C, H, W)` in the epoch's size; at full size the same tensor."""
        height, width = images.shape[-2:]
        size = self.size((height, width), epoch)
        if size == (height, width):
            return images
        return resize(images, list(size), antialias=True)

    def size(self, full: tuple[int, int], epoch: int) -> tuple[int, int]:
        """`(height, width)` in pixels in an epoch, for images of size `full`."""
        scale = self.scale(epoch)
        if scale == 1:
            return full
        height, width = (min(s, max(1, round(s * scale / MULTIPLE)) * MULTIPLE) for s in full)
        return height, width

    def scale(self, epoch: int) -> float:
        """Side of the images over the full side in an epoch."""
        progress = epoch / self.epochs
        if epoch >= self.epochs - 1 or progress >= self.full_size_at:
            return 1.0
        if progress <= self.growth_begins:
            return self.initial_scale
        grown = (progress - self.growth_begins) / (self.full_size_at - self.growth_begins)
        return self.initial_scale + (1 - self.initial_scale) * grown

    def check_any_size(self, backbone: Backbone) -> None:
        """Raise GraftError where the backbone cannot take one of the sizes to come; nothing is computed."""
        sides = dict.fromkeys(self.size(cast(tuple[int, int], backbone.size), epoch)[0] for epoch in range(self.epochs))
        for side in sides:
            try:
                output_shape(backbone.network, cast(int, backbone.channels), side)
            except (AssertionError, RuntimeError, ValueError) as error:
                raise GraftError(
                    f"training.progressive_resizing.initial_scale={self.initial_scale}: {backbone.name} cannot take "
                    f"images of {side} x {side} pixels ({first_line(error)}). Use a larger scale, or a network that "
                    "takes images of any size, such as backbone=resnet18."
                ) from error


class Mixing:
    """MixUp (Zhang et al., ICLR 2018) or CutMix (Yun et al., ICCV 2019); with both, each step draws one of the two.

    Every labelled domain is mixed within itself, its images with those before them in the batch, and gets soft labels
    `(B, K)`; an unlabelled one stays as it is. The weight of the mixture is drawn from Beta(alpha, alpha).
    """

    def __init__(
        self, classes: Mapping[str, int], mixup_alpha: float | None = None, cutmix_alpha: float | None = None
    ) -> None:
        """`classes` is the number K of each domain."""
        kinds = [(v2.MixUp, mixup_alpha), (v2.CutMix, cutmix_alpha)]
        self.mixers = [
            {domain: kind(alpha=alpha, num_classes=number) for domain, number in classes.items()}
            for kind, alpha in kinds
            if alpha is not None
        ]

    def __call__(self, batch: Batch, epoch: int) -> Batch:
        """The mixed batch."""
        mixers = self.mixers[int(torch.randint(len(self.mixers), ()))]
        return {domain: one if one.labels is None else mixed(one, mixers[domain]) for domain, one in batch.items()}


def mixed(batch: DomainBatch, mixer: Callable[..., tuple[Tensor, Tensor]]) -> DomainBatch:
    """A labelled batch with mixed inputs and soft labels `(B, K)`."""
    inputs, labels = mixer(batch.inputs, batch.labels)
    return replace(batch, inputs=inputs, labels=labels)


def build_batch_transforms(
    training: Mapping[str, Any],
    epochs: int,
    backbone: Backbone,
    tasks: Mapping[str, Task],
    num_outputs: Mapping[str, int],
) -> list[BatchTransform]:
    """What the `training` keys ask for; `tasks` and `num_outputs` are those of the domains that train.

    Raises GraftError for a task whose labels cannot be mixed, and a backbone that takes images of one size only.
    """
    check_images(training, backbone)
    transforms: list[BatchTransform] = []
    resizing = dict(training["progressive_resizing"])
    if resizing["initial_scale"] is not None:
        progressive = ProgressiveResizing(epochs, **resizing)
        progressive.check_any_size(backbone)
        transforms.append(progressive)
    alphas = {key: training[key] for key in ("mixup_alpha", "cutmix_alpha") if training[key] is not None}
    for domain, task in tasks.items():
        if alphas and not task.soft_labels:
            key, value = next(iter(alphas.items()))
            raise GraftError(
                f"training.{key}={value} mixes labels, which the {domain}'s task={task.name} cannot: it takes "
                f"task=multiclass or multilabel. Set training.{key}=null."
            )
    if alphas:
        transforms.append(Mixing(num_outputs, **alphas))
    return transforms


def check_images(training: Mapping[str, Any], backbone: Backbone) -> None:
    """Raise GraftError for what can only be done to images."""
    asked = {
        "progressive_resizing.initial_scale": training["progressive_resizing"]["initial_scale"],
        **{key: training[key] for key in ("mixup_alpha", "cutmix_alpha")},
    }
    key = next((key for key, value in asked.items() if value is not None), None)
    if key and backbone.modality != "image":
        raise GraftError(
            f"training.{key}={asked[key]} changes images, and {backbone.name} takes {backbone.modality} inputs. "
            f"Set training.{key}=null."
        )
