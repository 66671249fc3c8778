"""RetinaNet: boxes from anchors of several sizes and shapes (Lin et al., ICCV 2017), by torchvision."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import annotated_types
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from graft.config.types import Count
from graft.heads.base import HeadContext
from graft.heads.dense import LEAST_SCORE, PER_IMAGE, DenseHead, DenseOutputs, Stride, Width

SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # sizes of a map's anchors over the smallest
RATIOS = (0.5, 1.0, 2.0)  # of their height to their width


class RetinaNetHead(DenseHead):
    """Nine anchors at every place, each of which says its class and how its box differs from it."""

    def __init__(
        self,
        context: HeadContext,
        width: Width = 64,
        strides: Sequence[Stride] = (8, 16, 32),
        anchor_size: Count = 16,
        nms_iou: Annotated[float, annotated_types.Interval(gt=0, le=1)] = 0.5,
    ) -> None:
        """`anchor_size` is the side of the first map's smallest anchor in pixels; it doubles from map to map."""
        self.anchor_size = anchor_size
        self.nms_iou = nms_iou
        self.strides = sorted(strides)
        super().__init__(context, width, strides)

    def build_detector(self, pyramid: nn.Module, num_classes: int) -> nn.Module:
        """torchvision's RetinaNet."""
        smallest = [self.anchor_size * 2**level for level in range(len(self.strides))]
        sizes = tuple(tuple(round(side * scale) for scale in SCALES) for side in smallest)
        return RetinaNet(
            pyramid,
            num_classes,
            anchor_generator=AnchorGenerator(sizes, (RATIOS,) * len(sizes)),
            score_thresh=LEAST_SCORE,
            nms_thresh=self.nms_iou,
            detections_per_img=PER_IMAGE,
        )

    def scores(self, values: Mapping[str, Tensor]) -> Tensor:
        """The class's probability."""
        return values["cls_logits"].sigmoid()

    def decode(self, values: Mapping[str, Tensor], anchors: Tensor) -> Tensor:
        """How each anchor is moved and stretched."""
        changes = values["bbox_regression"]
        rows = anchors.expand(changes.shape[0], -1, -1).flatten(0, 1)
        return self.detector.box_coder.decode_single(changes.flatten(0, 1), rows).view_as(changes)

    def match(self, targets: list[dict[str, Tensor]], outputs: DenseOutputs) -> dict[str, Tensor]:
        """Focal loss of the classes, L1 loss of the boxes."""
        return self.detector.compute_loss(targets, dict(outputs.values), [outputs.anchors] * len(targets))
