"""Detection heads that score boxes at every place of a pyramid of maps, on any backbone whose maps get smaller."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork, clip_boxes_to_image

from graft.backbones.outputs import Maps, MapSize
from graft.data.boxes import Boxes, by_padded_size
from graft.errors import GraftError
from graft.heads.base import HeadContext

Width = Literal[32, 64, 96, 128, 256]  # channels, as FCOS normalises them in 32 groups
Stride = Literal[4, 8, 16, 32]  # pixels of the image from one place of a map to the next
PER_IMAGE = 100  # predictions that are kept, as COCO's metric looks at no more
LEAST_SCORE = 0.05  # of a prediction that is kept at all
NOTHING = -1e4  # a logit whose probability is 0, and whose loss against 0 is 0 too


class DenseHead(nn.Module):
    """A feature pyramid (Lin et al., 2017) over a backbone's maps and one of torchvision's detectors on it.

    A subclass gives the detector, whose own backbone is the pyramid.
    """

    takes = "maps"

    def __init__(self, context: HeadContext, width: int, strides: Sequence[int]) -> None:
        """`width` is the number of channels of the pyramid; GraftError where the backbone has no map of a stride."""
        super().__init__()
        self.stages = chosen_stages(context.maps or {}, strides)
        channels = [(context.maps or {})[stage].channels for stage in self.stages]
        pyramid: Any = FeaturePyramidNetwork(channels, width)
        pyramid.out_channels = width  # which torchvision's detectors ask for
        self.detector: Any = self.build_detector(pyramid, context.num_outputs)

    def build_detector(self, pyramid: nn.Module, num_classes: int) -> nn.Module:
        """One of torchvision's detectors."""
        raise NotImplementedError

    def match(self, targets: list[dict[str, Tensor]], outputs: "DenseOutputs") -> dict[str, Tensor]:
        """The detector's losses by name."""
        raise NotImplementedError

    def scores(self, values: Mapping[str, Tensor]) -> Tensor:
        """How sure the detector is of each class at every anchor, `(B, A, K)`."""
        raise NotImplementedError

    def decode(self, values: Mapping[str, Tensor], anchors: Tensor) -> Tensor:
        """The box at every anchor, `(B, A, 4)`."""
        raise NotImplementedError

    def forward(self, maps: Maps) -> "DenseOutputs":
        """What the detector says at every anchor.

        In eval mode it says of each image what it would say of it alone, as the backbone does (graft.backbones.maps):
        neither pyramid nor norms see the padding that other images of the batch ask for.
        """
        by_canvas = {} if self.training or maps.sizes is None else by_padded_size(maps.sizes)
        if len(by_canvas) < 2:
            return self.at_every_anchor(maps)
        levels = [maps.values[stage] for stage in self.stages]
        parts = []
        for canvas, places in by_canvas.items():
            own = cropped(maps[places], canvas)
            grids = [(own.values[stage], maps.values[stage]) for stage in self.stages]
            parts.append(on_larger_grids(self.at_every_anchor(own), grids))
        back = torch.cat([*by_canvas.values()]).argsort()
        values = {name: torch.cat([one.values[name] for one in parts])[back] for name in parts[0].values}
        each = [canvas for canvas, places in by_canvas.items() for _ in places]
        canvases = tuple(each[number] for number in back.tolist())
        return DenseOutputs(values, self.anchors(maps.size, levels), parts[0].levels, maps.size, self, canvases)

    def at_every_anchor(self, maps: Maps) -> "DenseOutputs":
        """The same of images of one size, or of a padded batch as it is."""
        levels = [*self.detector.backbone({stage: maps.values[stage] for stage in self.stages}).values()]
        # The pyramid may compute in half precision; boxes are decoded in single precision.
        values = {name: value.float() for name, value in self.detector.head(levels).items()}
        anchors = self.anchors(maps.size, levels)
        places = [level.shape[-2] * level.shape[-1] for level in levels]
        per_place = anchors.shape[0] // sum(places)  # not len(), which would tie an exported graph to one size
        return DenseOutputs(values, anchors, tuple(per_place * number for number in places), maps.size, self)

    def anchors(self, size: tuple[int, int], levels: Sequence[Tensor]) -> Tensor:
        """Anchors `(A, 4)` at every place of some maps of images of a size."""
        padded = ImageList(levels[0].new_empty(()).expand(1, 1, *size), [size])
        return self.detector.anchor_generator(padded, [*levels])[0].float()


def cropped(maps: Maps, size: tuple[int, int]) -> Maps:
    """Maps of smaller images, of which those behind the end are padding."""
    height, width = (own / whole for own, whole in zip(size, maps.size, strict=True))
    values = {
        stage: one[..., : round(height * one.shape[-2]), : round(width * one.shape[-1])]
        for stage, one in maps.values.items()
    }
    return replace(maps, values=values, size=size)


@dataclass(frozen=True)
class DenseOutputs:
    """What a detector says of B images at each of A anchors, in the place of logits.

    `values` are `(B, A, ...)` by name, `anchors` `(A, 4)` in pixels of the padded images of `size` `(H, W)`, `levels`
    the number of anchors of each map. `canvases` are the images' own padded sizes where they differ.
    """

    values: Mapping[str, Tensor]
    anchors: Tensor
    levels: tuple[int, ...]
    size: tuple[int, int]
    head: DenseHead
    canvases: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def __getitem__(self, images: slice) -> "DenseOutputs":
        """Those of some images."""
        values = {name: value[images] for name, value in self.values.items()}
        return replace(self, values=values, canvases=self.canvases[images])

    def detach(self) -> "DenseOutputs":
        """Without their graph."""
        return replace(self, values={name: value.detach() for name, value in self.values.items()})

    @property
    def requires_grad(self) -> bool:
        """Whether anything can learn from them."""
        return any(value.requires_grad for value in self.values.values())

    def sum(self) -> Tensor:
        """Of everything, for what needs a number to go back from."""
        return torch.stack([value.sum() for value in self.values.values()]).sum()

    def loss(self, labels: Boxes) -> Tensor:
        """The detector's loss, the mean over the images and the sum of its parts."""
        targets = labels.dictionaries()
        return torch.stack([*self.head.match(targets, self).values()]).sum()

    def candidates(self) -> Tensor:
        """Each anchor's box, in pixels of the padded images, and its score for each class `(B, A, 4 + K)`."""
        boxes = clip_boxes_to_image(self.head.decode(self.values, self.anchors), self.size)
        return torch.cat([boxes, self.head.scores(self.values)], dim=-1)

    def detections(self) -> Boxes:
        """Boxes with scores after non-maximum suppression, in pixels of the padded images, the best first."""
        detector = self.head.detector
        split = {name: [*value.detach().split(list(self.levels), dim=1)] for name, value in self.values.items()}
        anchors = [[*self.anchors.split(list(self.levels))]] * len(self)
        found = detector.postprocess_detections(split, anchors, [*self.canvases] or [self.size] * len(self))
        sizes = torch.tensor([self.size] * len(self), device=self.anchors.device).view(-1, 2)
        return Boxes(
            [one["boxes"] for one in found],
            [one["labels"] for one in found],
            sizes,
            sizes,
            [one["scores"] for one in found],
        )


def on_larger_grids(outputs: DenseOutputs, grids: Sequence[tuple[Tensor, Tensor]]) -> DenseOutputs:
    """Outputs for smaller images on the grids of larger ones, whose maps stand beside their own `(own, larger)`.

    At the anchors that are new the detector finds nothing.
    """
    per_place = outputs.levels[0] // grids[0][0].shape[-2:].numel()
    values = {}
    for name, value in outputs.values.items():
        levels = []
        for one, (own, larger) in zip(value.split([*outputs.levels], dim=1), grids, strict=True):
            (height, width), whole = own.shape[-2:], larger.shape[-2:]
            fill = NOTHING if name == "cls_logits" else 0.0
            grid = one.new_full((len(one), *whole, per_place, *one.shape[2:]), fill)
            grid[:, :height, :width] = one.unflatten(1, (height, width, per_place))
            levels.append(grid.flatten(1, 3))
        values[name] = torch.cat(levels, dim=1)
    numbers = tuple(per_place * larger.shape[-2:].numel() for _, larger in grids)
    return replace(outputs, values=values, levels=numbers)


def chosen_stages(maps: Mapping[str, MapSize], strides: Sequence[int]) -> list[str]:
    """The last stage with a map of each stride; GraftError where there is none."""
    by_stride = {one.stride: stage for stage, one in maps.items()}
    if missing := [stride for stride in strides if stride not in by_stride]:
        known = ", ".join(f"{stride} ({stage})" for stride, stage in by_stride.items()) or "none"
        raise GraftError(
            f"head.strides={list(strides)}: the backbone has no map (B, C, H, W) of stride {missing[0]}; it has "
            f"{known}. Choose other strides, or a convolutional backbone (backbone=efficientnet_lite0, resnet18)."
        )
    return [by_stride[stride] for stride in sorted(strides)]
