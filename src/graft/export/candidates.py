"""From candidates to boxes, which an exported file leaves to its reader: the weaker of two that overlap goes."""

from typing import Any

from torch import Tensor
from torchvision.ops import batched_nms

from graft.data.boxes import Boxes
from graft.heads.dense import LEAST_SCORE, PER_IMAGE


def rule_of(head: Any) -> dict[str, Any]:
    """What a reader has to know, as plain values."""
    return {
        "columns": ["x0", "y0", "x1", "y1", "a score for each class"],
        "unit": "pixels of the padded image",
        "least_score": LEAST_SCORE,
        "nms_iou": float(head.nms_iou),
        "per_image": PER_IMAGE,
    }


def boxes_of(candidates: Tensor, sizes: Tensor, nms_iou: float) -> Boxes:
    """The best boxes of each image of candidates `(B, A, 4 + K)`; `sizes` `(B, 2)` are those of the padded images."""
    found = []
    for one in candidates:
        places, classes = (one[:, 4:] > LEAST_SCORE).nonzero(as_tuple=True)
        boxes, scores = one[places, :4], one[places, 4 + classes]
        kept = batched_nms(boxes, scores, classes, nms_iou)[:PER_IMAGE]
        found.append((boxes[kept], classes[kept], scores[kept]))
    boxes, classes, scores = (list(one) for one in zip(*found, strict=True))
    return Boxes(boxes, classes, sizes, sizes, scores)
