"""Surgical fine-tuning: one chosen stage moves (Lee et al., ICLR 2023)."""

from graft.backbones.base import Backbone
from graft.strategies.base import Phase, Strategy, TrainBatchNorm, stage_names


class Surgical(Strategy):
    """Only `stage` trains, and the head: the first stage suits a shift of the input, a later one a shift of meaning.

    `stage` is `first`, `last` or a stage's name. `train_head=False` is the paper's setting for a target with the
    source's classes, whose head is pretrained too.
    """

    freezes = True

    def __init__(self, stage: str = "first", train_head: bool = True, train_bn: TrainBatchNorm = None) -> None:
        super().__init__(train_bn)
        self.stage = stage
        self.train_head = train_head

    def phases(self, epochs: int, backbone: Backbone) -> list[Phase]:
        """One phase with one stage; GraftError for a name that the backbone does not have."""
        names = stage_names(backbone)
        chosen = {"first": names[0], "last": names[-1]}.get(self.stage, self.stage)
        backbone.stage_parameters(chosen)  # refuses an unknown name
        return [self.phase(epochs, backbone, (chosen,), heads=self.train_head)]
