"""Gradual unfreezing: stage by stage from the head down (ULMFiT, Howard and Ruder, ACL 2018)."""

from collections.abc import Sequence

from graft.backbones.base import Backbone
from graft.config.types import Count
from graft.errors import GraftError
from graft.strategies.base import Phase, Strategy, TrainBatchNorm, stage_names


class Gradual(Strategy):
    """The head trains first; from then on one more stage, the topmost frozen one, joins at a time.

    `unfreeze_at` lists the epochs (from 0) at which the next stage joins; without it one joins every `every_epochs`.
    Stages whose turn does not come before the last epoch stay frozen. One learning-rate schedule spans all phases.
    """

    freezes = True

    def __init__(
        self, every_epochs: Count = 1, unfreeze_at: Sequence[Count] | None = None, train_bn: TrainBatchNorm = None
    ) -> None:
        super().__init__(train_bn)
        if every_epochs < 1:
            raise GraftError(f"strategy.every_epochs={every_epochs} must be at least 1 epoch.")
        given = list(unfreeze_at or [])
        if given != sorted(set(given)) or (given and given[0] < 1):
            raise GraftError(
                f"strategy.unfreeze_at={given} must be epochs in rising order, the first at least 1: "
                "the head trains alone before it."
            )
        self.every_epochs = every_epochs
        self.unfreeze_at = given or None

    def phases(self, epochs: int, backbone: Backbone) -> list[Phase]:
        """A phase for the head, then one for each stage from the top."""
        stages = stage_names(backbone)
        starts = self.unfreeze_at or [self.every_epochs * (i + 1) for i in range(len(stages))]
        if len(starts) > len(stages):
            raise GraftError(
                f"strategy.unfreeze_at={starts} unfreezes {len(starts)} stages, but {backbone.name} has "
                f"{len(stages)}: {', '.join(stages)}."
            )
        starts = [0, *(start for start in starts if start < epochs)]
        return [
            self.phase(end - start, backbone, stages[len(stages) - number :], restarts=number == 0)
            for number, (start, end) in enumerate(zip(starts, [*starts[1:], epochs], strict=True))
        ]
