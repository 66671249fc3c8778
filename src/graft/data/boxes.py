"""Boxes in images as labels and as predictions: a list for each image, moved, indexed and joined like a tensor."""

import builtins
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

MULTIPLE = 32  # pixels of which a padded side is a multiple, so that every map of a pyramid covers the whole image


def padded_sizes(sizes: Tensor) -> Tensor:
    """Heights and widths `(N, 2)` of images with the padding that they need by themselves."""
    return (sizes + MULTIPLE - 1) // MULTIPLE * MULTIPLE


def by_padded_size(sizes: Tensor) -> dict[tuple[int, int], Tensor]:
    """Places `(b,)`, among images of `sizes` `(N, 2)`, of those with the same height and width once they are padded."""
    places: dict[tuple[int, int], list[int]] = {}
    for place, (height, width) in enumerate(padded_sizes(sizes).tolist()):
        places.setdefault((height, width), []).append(place)
    return {padded: torch.tensor(found) for padded, found in places.items()}


@dataclass(frozen=True)
class Boxes:
    """Boxes of N images: `boxes[i]` float `(n, 4)` as x0, y0, x1, y1 in pixels, `classes[i]` int64 `(n,)`.

    `sizes` `(N, 2)` are height and width of the images in whose pixels the boxes are, `original` those of the images as
    they were read. Predictions have `scores[i]` `(n,)` too.
    """

    boxes: Sequence[Tensor]
    classes: Sequence[Tensor]
    sizes: Tensor
    original: Tensor
    scores: Sequence[Tensor] | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Any) -> "Boxes":
        """Those of some images: a slice, indices `(M,)`, or a mask `(N,)`."""
        numbers = torch.arange(len(self))[index].tolist()
        scores = None if self.scores is None else [self.scores[i] for i in numbers]
        return Boxes(
            [self.boxes[i] for i in numbers],
            [self.classes[i] for i in numbers],
            self.sizes[numbers],
            self.original[numbers],
            scores,
        )

    @classmethod
    def none(cls, original: Sequence[Sequence[int]], sizes: Sequence[Sequence[int]]) -> "Boxes":
        """No box in images that were of `original` sizes `(H, W)` and are of others now."""
        boxes, classes = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
        number = len(original)
        return cls([boxes] * number, [classes] * number, torch.tensor(sizes), torch.tensor(original))

    @classmethod
    def join(cls, parts: "Sequence[Boxes]") -> "Boxes":
        """Batches one after the other as one."""
        scores = None if parts[0].scores is None else [one for part in parts for one in part.scores or ()]
        return cls(
            [one for part in parts for one in part.boxes],
            [one for part in parts for one in part.classes],
            torch.cat([part.sizes for part in parts]),
            torch.cat([part.original for part in parts]),
            scores,
        )

    def to(self, device: Any, **options: Any) -> "Boxes":
        """Every tensor moved."""
        return self._each(lambda one: one.to(device, **options))

    def pin_memory(self) -> "Boxes":
        """Every tensor in memory from which a GPU copies while it computes."""
        return self._each(lambda one: one.pin_memory())

    def cpu(self) -> "Boxes":
        """Every tensor in main memory."""
        return self.to("cpu")

    def float(self) -> "Boxes":
        """Coordinates and scores in single precision."""
        scores = None if self.scores is None else [one.float() for one in self.scores]
        return replace(self, boxes=[one.float() for one in self.boxes], scores=scores)

    def _each(self, move: Callable[[Tensor], Tensor]) -> "Boxes":
        return Boxes(
            [move(one) for one in self.boxes],
            [move(one) for one in self.classes],
            move(self.sizes),
            move(self.original),
            None if self.scores is None else [move(one) for one in self.scores],
        )

    def above(self, score: builtins.float) -> "Boxes":
        """The predictions that score at least so much."""
        assert self.scores is not None
        kept = [one >= score for one in self.scores]
        return replace(
            self,
            boxes=[one[keep] for one, keep in zip(self.boxes, kept, strict=True)],
            classes=[one[keep] for one, keep in zip(self.classes, kept, strict=True)],
            scores=[one[keep] for one, keep in zip(self.scores, kept, strict=True)],
        )

    def restored(self, like: "Boxes | None" = None) -> "Boxes":
        """The same in pixels of the images as they were read, cut off at the images' borders.

        Predictions on a padded batch do not know what is image in it: `like` are labels of the same images, which do.
        """
        known = self if like is None else like
        sizes, original = known.sizes.to(self.sizes.device), known.original.to(self.sizes.device)
        boxes = []
        for one, size, whole in zip(self.boxes, sizes, original, strict=True):
            scale = (whole / size).flip(0).repeat(2)
            limit = whole.flip(0).repeat(2)
            boxes.append(torch.minimum(one.clamp(min=0) * scale, limit.to(one.dtype)))
        return replace(self, boxes=boxes, sizes=original, original=original)

    def resized(self, sizes: Tensor) -> "Boxes":
        """Boxes of images as they were read in pixels of the same images resized to `sizes` `(N, 2)`."""
        scales = (sizes / self.original).flip(1).repeat(1, 2)
        boxes = [one * scale for one, scale in zip(self.boxes, scales, strict=True)]
        return replace(self, boxes=boxes, sizes=sizes)

    def counts(self, num_classes: int) -> Tensor:
        """How many boxes of each class every image has, `(N, K)`."""
        return torch.stack([one.bincount(minlength=num_classes) for one in self.classes])

    def dictionaries(self) -> list[dict[str, Tensor]]:
        """As torchvision's detectors and torchmetrics take them, a mapping an image."""
        found = [{"boxes": b, "labels": c} for b, c in zip(self.boxes, self.classes, strict=True)]
        if self.scores is not None:
            found = [one | {"scores": score} for one, score in zip(found, self.scores, strict=True)]
        return found

    def tolist(self) -> list[tuple[Any, ...]]:
        """Plain values that are equal for images with the same boxes."""
        return [
            tuple((label, *box) for box, label in zip(boxes.tolist(), classes.tolist(), strict=True))
            for boxes, classes in zip(self.boxes, self.classes, strict=True)
        ]

    @property
    def digest(self) -> bytes:
        """Hash of all of them."""
        return hashlib.sha256(repr((self.tolist(), self.original.tolist())).encode()).digest()
