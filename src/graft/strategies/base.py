"""What a strategy is: phases of training, each with the parameters that train in it."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from graft.backbones.base import Backbone

TrainBatchNorm = bool | Literal["auto"] | None


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs with one set of trainable parameters.

    In `stages` dropout is on and BatchNorm uses the batch where its own parameters train; everything else is in eval.
    """

    epochs: int
    stages: tuple[str, ...]  # stages of the backbone that are in training mode
    parameters: frozenset[str]  # trainable ones, by their names in `backbone.named_parameters()`
    lr_factor: float = 1.0  # learning rate in this phase over the optimizer's
    heads: bool = True  # the heads train too
    classifiers: bool = True  # False: of the heads only the bottlenecks train
    restarts: bool = True  # begins a learning-rate schedule; False: goes on in the one of the phase before
    schedule: Any = None  # a separate schedule instead of the run's (see graft.training.schedules)


class Strategy:
    """Which parameters train and when.

    `train_bn` says when BatchNorm trains (scale, shift and statistics): None with its stage, True also in frozen
    stages (as fastai does), False never. "auto" is what graft.strategies.batchnorm says once a run knows its
    steps; until then it is None.
    """

    pretrained = True  # False: starts from random weights whatever backbone.weights says
    needs_pretrained = False  # True: refused where there are no pretrained weights
    matches_flops = False  # True: trains for as long as pretraining and training take together, in FLOPs
    freezes = False  # True: keeps some of the backbone as it was pretrained, for a while or for good
    trains_backbone = True  # False: nothing of it ever trains, but BatchNorm where `train_bn` says so
    keeps_classifier = False  # True: the head's classifier never trains, so that it has to be one that has learned
    adds_layers = False  # True: puts layers of its own into the network, which may stay there
    closed_fit = False  # True: graft.probe.fit fits the head at once on frozen features, in the place of gradient steps
    fills_cache = False  # True: the closed fit is that of a head which caches samples
    trains_nothing = False  # True: nothing is fitted, and no label is used
    min_epochs = 1
    own_schedules = False  # True: its phases restart schedules, or bring their own
    note = ""  # what `prepare` did to the backbone, printed before training

    def __init__(self, train_bn: TrainBatchNorm = None) -> None:
        self.train_bn = train_bn

    def phases(self, epochs: int, backbone: Backbone) -> list[Phase]:
        """Phases that fill `epochs`; GraftError where the epochs or the backbone do not suit the strategy."""
        raise NotImplementedError

    def settings(self, samples: int, image_side: Callable[[], int | None]) -> dict[str, Any]:
        """Config keys that the strategy sets from the number of training samples and the images' side in pixels.

        `image_side` looks at an image when it is called, and returns None where there are none.
        """
        return {}

    def prepare(self, backbone: Backbone) -> None:
        """Change the pretrained backbone in place before training, such as adding the parameters that will train."""

    def merge(self, backbone: Backbone) -> bool:
        """Fold what `prepare` added into plain weights, in place; False where there is nothing to fold."""
        return False

    def phase(
        self, epochs: int, backbone: Backbone, stages: Sequence[str], names: Iterable[str] | None = None, **options: Any
    ) -> Phase:
        """A phase that trains `stages`, or of them only the parameters in `names`, and BatchNorm as `train_bn` says.

        What nothing pretrained trains too, and what the backbone keeps fixed never does.
        """
        if names is None:
            names = (name for stage in stages for name in backbone.stage_parameters(stage))
        parameters = frozenset(names)
        if isinstance(self.train_bn, bool):
            norms = batchnorm_parameters(backbone)
            parameters = parameters | norms if self.train_bn else parameters - norms
        if backbone.new_stages or backbone.fixed_stages:
            stages = [s for s in stage_names(backbone) if s in {*stages, *backbone.new_stages}]
            stages = [s for s in stages if s not in backbone.fixed_stages]
            new = (name for stage in backbone.new_stages for name in backbone.stage_parameters(stage))
            fixed = (name for stage in backbone.fixed_stages for name in backbone.stage_parameters(stage))
            parameters = (parameters | {*new}) - {*fixed}
        return Phase(epochs, tuple(stages), parameters, **options)


def frozen_modules(backbone: Backbone, phase: Phase) -> list[nn.Module]:
    """Modules that are in eval mode in a phase: frozen stages, and BatchNorm wherever its own parameters are frozen."""
    frozen = []
    for name, stage in backbone.module_stages().items():
        module = backbone.get_submodule(name)
        trains = stage in phase.stages
        if isinstance(module, _BatchNorm) and module.affine:
            trains = any(f"{name}.{parameter}" in phase.parameters for parameter in ("weight", "bias"))
        if not trains:
            frozen.append(module)
    return frozen


def stage_names(backbone: Backbone) -> tuple[str, ...]:
    """Names of all stages from input to output."""
    return tuple(stage.name for stage in backbone.stages)


def in_short(names: Iterable[str]) -> str:
    """Names that differ in numbers only as one, with how many they are: `blocks.*.mlp.fc2 (12)`."""
    alike: dict[str, list[list[str]]] = {}
    for name in names:
        alike.setdefault(re.sub(r"\d+", "{}", name), []).append(re.findall(r"\d+", name))
    texts = []
    for pattern, numbers in alike.items():
        values = [set(column) for column in zip(*numbers, strict=True)]
        texts.append(f"{pattern.format(*(v.pop() if len(v) == 1 else '*' for v in values))} ({len(numbers)})")
    return ", ".join(texts)


def batchnorm_parameters(backbone: Backbone) -> frozenset[str]:
    """Names of the scales and shifts of every BatchNorm."""
    return frozenset(
        f"{name}.{parameter}"
        for name, module in backbone.named_modules()
        if isinstance(module, _BatchNorm)
        for parameter, _ in module.named_parameters(recurse=False)
    )
