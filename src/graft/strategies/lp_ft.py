"""LP-FT: linear probe, then full fine-tuning from that head (Kumar et al., ICLR 2022)."""

from typing import Annotated

from annotated_types import Interval

from graft.backbones.base import Backbone
from graft.config.types import NonNegative
from graft.errors import GraftError
from graft.strategies.base import Phase, Strategy, TrainBatchNorm, stage_names


class LinearProbeThenFineTune(Strategy):
    """A head that fits the pretrained features first distorts them less when everything trains."""

    freezes = True
    min_epochs = 2
    own_schedules = True

    def __init__(
        self,
        probe_fraction: Annotated[float, Interval(gt=0, lt=1)] = 0.5,
        lr_ratio: NonNegative = 0.3,
        train_bn: TrainBatchNorm = None,
    ) -> None:
        super().__init__(train_bn)
        if not 0 < probe_fraction < 1:
            raise GraftError(f"strategy.probe_fraction={probe_fraction} is out of range: it must be between 0 and 1.")
        self.probe_fraction = probe_fraction
        self.lr_ratio = lr_ratio

    def phases(self, epochs: int, backbone: Backbone) -> list[Phase]:
        """The head alone, then everything at a smaller rate; each phase has at least one epoch."""
        if epochs < 2:
            raise GraftError(f"strategy=lp_ft has two phases and needs training.epochs >= 2, not {epochs}.")
        probe = min(max(1, round(self.probe_fraction * epochs)), epochs - 1)
        return [
            self.phase(probe, backbone, ()),
            self.phase(epochs - probe, backbone, stage_names(backbone), lr_factor=self.lr_ratio),
        ]
