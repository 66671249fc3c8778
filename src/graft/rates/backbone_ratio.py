"""A smaller learning rate for the whole backbone."""

from collections.abc import Sequence

from graft.config.types import NonNegative


class BackboneRatio:
    """The backbone learns at a fraction of the head's rate, so that pretrained features move slowly."""

    def __init__(self, backbone_lr_ratio: NonNegative = 0.1) -> None:
        self.backbone_lr_ratio = backbone_lr_ratio

    def multipliers(self, stages: Sequence[str]) -> dict[str, float]:
        """Learning rate of each backbone stage over the head's."""
        return dict.fromkeys(stages, self.backbone_lr_ratio)
