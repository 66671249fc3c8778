"""FCOS: boxes from single places, without anchors (Tian et al., ICCV 2019), by torchvision."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import annotated_types
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, fcos
from torchvision.models.detection.anchor_utils import AnchorGenerator

from graft.data.sampling import rank_and_world
from graft.heads.base import HeadContext
from graft.heads.dense import LEAST_SCORE, PER_IMAGE, DenseHead, DenseOutputs, Stride, Width
from graft.terms.processes import several, summed


class Places(fcos.FCOSHead):
    """torchvision's layers behind the pyramid; their losses in training are means over the places of all processes."""

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        """Each loss by its name; torchvision divides by the places of this process that answer for a box."""
        losses = super().compute_loss(targets, head_outputs, anchors, matched_idxs)
        if not (self.training and several()):
            return losses
        own = (torch.stack(matched_idxs) >= 0).sum().float()
        share = own.clamp(min=1) * rank_and_world()[1] / summed(own).clamp(min=1)
        return {name: loss * share for name, loss in losses.items()}


class FCOSHead(DenseHead):
    """Every place says how far the four sides of its box are, of which class it is, and how central it is in it.

    A place answers for boxes whose farthest side is at most eight strides away, those of the last map for all larger.
    """

    def __init__(
        self,
        context: HeadContext,
        width: Width = 64,
        strides: Sequence[Stride] = (8, 16, 32),
        nms_iou: Annotated[float, annotated_types.Interval(gt=0, le=1)] = 0.6,
    ) -> None:
        """`nms_iou` is the overlap from which the weaker of two boxes of one class is dropped."""
        self.nms_iou = nms_iou
        self.strides = sorted(strides)
        super().__init__(context, width, strides)

    def build_detector(self, pyramid: nn.Module, num_classes: int) -> nn.Module:
        """torchvision's FCOS, whose anchors are squares of a stride."""
        sizes = tuple((stride,) for stride in self.strides)
        return FCOS(
            pyramid,
            num_classes,
            anchor_generator=AnchorGenerator(sizes, ((1.0,),) * len(sizes)),
            head=Places(pyramid.out_channels, 1, num_classes),
            score_thresh=LEAST_SCORE,
            nms_thresh=self.nms_iou,
            detections_per_img=PER_IMAGE,
        )

    def scores(self, values: Mapping[str, Tensor]) -> Tensor:
        """The geometric mean of the class's and the centre's probability."""
        return (values["cls_logits"].sigmoid() * values["bbox_ctrness"].sigmoid()).sqrt()

    def decode(self, values: Mapping[str, Tensor], anchors: Tensor) -> Tensor:
        """Four distances from the middle of every place, in its strides."""
        return self.detector.box_coder.decode(values["bbox_regression"], anchors)

    def match(self, targets: list[dict[str, Tensor]], outputs: DenseOutputs) -> dict[str, Tensor]:
        """Focal loss of the classes, GIoU loss of the boxes, cross entropy of the centres."""
        anchors = [outputs.anchors] * len(targets)
        return self.detector.compute_loss(targets, dict(outputs.values), anchors, list(outputs.levels))
