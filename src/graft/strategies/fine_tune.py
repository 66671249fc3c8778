"""fastai's recipe in one word: a frozen one-cycle epoch, then everything with rates spread over the stages."""

from graft.backbones.base import Backbone
from graft.config.types import Count, Fraction, NonNegative, Positive
from graft.errors import GraftError
from graft.strategies.base import Phase, Strategy, TrainBatchNorm, stage_names
from graft.training.schedules import OneCycle

FINAL_RATE = 1e5  # full rate over the last one, in both phases


class FineTune(Strategy):
    """`Learner.fine_tune` of fastai (Howard and Gugger, Information 2020).

    Both phases have one-cycle schedules of their own, whatever the run's scheduler. fastai trains BatchNorm in the
    frozen phase, Graft does not unless `train_bn` is true.
    """

    freezes = True
    own_schedules = True

    def __init__(
        self,
        freeze_epochs: Count = 1,
        lr_ratio: NonNegative = 0.5,
        warmup_fraction: Fraction = 0.3,
        div_factor: Positive = 5.0,
        train_bn: TrainBatchNorm = None,
    ) -> None:
        super().__init__(train_bn)
        self.freeze_epochs = freeze_epochs
        self.lr_ratio = lr_ratio
        self.frozen_cycle = OneCycle(warmup_fraction=0.99, final_div_factor=FINAL_RATE / 25)
        self.full_cycle = OneCycle(warmup_fraction, div_factor, final_div_factor=FINAL_RATE / div_factor)

    def phases(self, epochs: int, backbone: Backbone) -> list[Phase]:
        """The head alone, then everything at `lr_ratio` of its rate."""
        if epochs <= self.freeze_epochs:
            raise GraftError(
                f"strategy=fine_tune trains {self.freeze_epochs} frozen epochs (strategy.freeze_epochs) and then the "
                f"rest: it needs training.epochs >= {self.freeze_epochs + 1}, not {epochs}."
            )
        return [
            self.phase(self.freeze_epochs, backbone, (), schedule=self.frozen_cycle),
            self.phase(
                epochs - self.freeze_epochs,
                backbone,
                stage_names(backbone),
                lr_factor=self.lr_ratio,
                schedule=self.full_cycle,
            ),
        ]
