"""Freezing the first layers: the general features of a pretrained network stay (Yosinski et al., NeurIPS 2014)."""

from graft.backbones.base import Backbone
from graft.config.types import Natural
from graft.errors import GraftError
from graft.strategies.base import Phase, Strategy, TrainBatchNorm, stage_names


class FreezeUntil(Strategy):
    """The first `stages` stages stay frozen, or everything before the module `module`; the rest trains."""

    freezes = True

    def __init__(self, stages: Natural | None = 1, module: str | None = None, train_bn: TrainBatchNorm = None) -> None:
        super().__init__(train_bn)
        if (stages is None) == (module is None):
            raise GraftError(
                f"strategy.stages={stages} and strategy.module={module}: give one of them and set the other to null."
            )
        self.stages = stages
        self.module = module

    def phases(self, epochs: int, backbone: Backbone) -> list[Phase]:
        """One phase with what comes after the border."""
        if self.module is None:
            assert self.stages is not None
            names = stage_names(backbone)
            if not 0 <= self.stages <= len(names):
                raise GraftError(
                    f"strategy.stages={self.stages}: {backbone.name} has {len(names)} stages to freeze: "
                    f"{', '.join(names)}."
                )
            return [self.phase(epochs, backbone, names[self.stages :])]
        return [self._after_module(epochs, backbone)]

    def _after_module(self, epochs: int, backbone: Backbone) -> Phase:
        """Everything from the module on, in the order in which the stages hold their parameters."""
        ordered = [(stage, name) for stage in stage_names(backbone) for name in backbone.stage_parameters(stage)]
        assert self.module is not None
        prefix = f"network.{self.module.removeprefix('network.')}"
        inside = [i for i, (_, name) in enumerate(ordered) if name == prefix or name.startswith(f"{prefix}.")]
        if not inside:
            known = dict.fromkeys(name.removeprefix("network.").rpartition(".")[0] for _, name in ordered)
            raise GraftError(
                f"strategy.module={self.module}: {backbone.name} has no module of that name with parameters. "
                f"It has {', '.join(known)}."
            )
        trained = ordered[inside[0] :]
        return self.phase(epochs, backbone, tuple(dict.fromkeys(s for s, _ in trained)), [n for _, n in trained])
