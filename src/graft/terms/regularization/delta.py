"""DELTA: feature maps shall stay near the pretrained ones, most where the target needs them (Li et al., ICLR 2019)."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.backbones.base import Backbone
from graft.backbones.outputs import channel_dim, channels_first
from graft.config.types import Count, NonNegative
from graft.errors import GraftError
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.regularization.channel_attention import attention_weights, loss_increases
from graft.terms.regularization.maps import MapRecorder
from graft.terms.requirements import check_at_least, check_pretrained


def delta_penalty(maps: Tensor, pretrained: Tensor, attention: Tensor) -> Tensor:
    """`1/2 * C * sum_c attention_c * ||maps_c - pretrained_c||^2 / P`, mean over samples.

    Maps are `(B, C, P)`, P = h*w positions; attention `(C,)` sums to 1. Without the factor C, which the paper leaves
    out and its code has, a layer counts the less the more channels it has.
    """
    by_channel = F.mse_loss(maps, pretrained, reduction="none").mean(dim=2)
    return maps.shape[1] * (by_channel * attention).sum(dim=1).mean() / 2


class DELTA(Term):
    """Sum over the stages of the distance between the trained and the pretrained backbone's outputs, channel-weighted.

    `layers` names stages of the backbone; None is all of them. `attention=False` weighs all channels the same.
    Otherwise the weights are measured once on about `attention_samples` labelled target samples, the same number of
    each class, with a forward pass of the backbone from the stage on for every channel. A single channel of a fitted
    network changes the loss little, so the weights are nearly equal unless `standardize` spreads them.
    """

    needs_pretrained = True
    channel_weights: Tensor  # (C of all layers,), in the checkpoint

    def __init__(
        self,
        weight: NonNegative = 0.64,
        layers: Sequence[str] | None = None,
        attention: bool = True,
        attention_samples: Count = 64,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        check_at_least("delta.weight", weight, 0)
        check_at_least("delta.attention_samples", attention_samples, 1)
        self.weight = weight
        self.layers = layers
        self.attention = attention
        self.attention_samples = attention_samples
        self.standardize = standardize

    def check(self, context: TermContext) -> None:
        """GraftError for stages that the backbone lacks, and for inputs of which there are no maps."""
        self._stages(context.backbone)
        if not isinstance(context.backbone.example_inputs(1), Tensor):
            raise GraftError(
                f"term.delta compares maps of images, and {context.backbone.name} takes {context.backbone.modality} "
                "inputs. Use term=[feature_distillation] or term=[l2sp]."
            )

    def prepare(self, context: TermContext) -> None:
        """Record maps of both backbones from now on, and measure the channels' weights on the pretrained one."""
        check_pretrained(context, "delta")
        stages = self._stages(context.backbone)
        modules = [context.backbone.output_module(stage) for stage in stages]
        self._teacher = context.teacher
        self._pretrained_maps = MapRecorder(self._teacher.backbone, modules, training_only=False)
        self._channels = self._count_channels(self._teacher.backbone, stages)
        weights = [torch.full((channels,), 1 / channels) for channels in self._channels]
        if self.attention:
            per_class = max(1, self.attention_samples // max(2, context.num_classes or 0))
            increases = loss_increases(self._teacher.backbone, modules, samples_of_classes(context), per_class)
            weights = [attention_weights(increase, self.standardize) for increase in increases]
        self.register_buffer("channel_weights", torch.cat(weights).to(next(context.backbone.parameters())))
        self._maps = MapRecorder(context.backbone, modules, training_only=True)

    def forward(self, step: TrainStep) -> Tensor:
        """The penalty on the samples of all domains; the trained backbone has run on them, the pretrained one runs."""
        inputs = step.all_inputs
        self._teacher.features(inputs)
        trained, pretrained = self._maps.read(len(inputs)), self._pretrained_maps.read(len(inputs))
        layers = zip(trained, pretrained, self.channel_weights.split(self._channels), strict=True)
        return torch.stack([delta_penalty(channels_first(m), channels_first(m0), a) for m, m0, a in layers]).sum()

    def _stages(self, backbone: Backbone) -> list[str]:
        """The stages of `layers`, or all."""
        names = [stage.name for stage in backbone.stages]
        if self.layers is None:
            return names
        unknown = [name for name in self.layers if name not in names]
        if unknown or not self.layers:
            raise GraftError(
                f"term.delta.layers={list(self.layers)}: {backbone.name} has no stage {', '.join(unknown) or 'for it'}."
                f" Allowed: null for all, or some of {', '.join(names)}."
            )
        return list(self.layers)

    def _count_channels(self, backbone: Backbone, stages: Sequence[str]) -> list[int]:
        """Channels of every stage's map; GraftError for one that puts out none."""
        maps = backbone.local(backbone.example_inputs(1))
        if missing := [stage for stage in stages if stage not in maps]:
            module = backbone.output_module(missing[0])
            raise GraftError(f"The backbone's {module} puts out no map. Name other stages in term.delta.layers.")
        return [maps[stage].shape[channel_dim(maps[stage])] for stage in stages]


def samples_of_classes(context: TermContext) -> Iterator[tuple[Tensor, Tensor]]:
    """The target's training samples with their class; GraftError where they have none, or several."""
    for batch in context.samples():
        inputs, labels = batch.inputs, batch.labels
        if context.num_classes is None or labels is None or labels.ndim != 1:
            raise GraftError(
                "term.delta.attention=true measures what channels are worth for the target's classes, but the target "
                "has none, or several a sample, or is unlabelled. Set term.delta.attention=false."
            )
        yield inputs, labels
