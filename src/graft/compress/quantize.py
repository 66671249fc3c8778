"""Quantisation-aware training: the network learns to do with 8-bit weights and activations."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from graft.backbones.stages import network_outputs
from graft.compress.base import Compression, CompressionContext, check_resumed
from graft.config.types import Count, Natural
from graft.heads.base import seen_by

KIND = "quantize"
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)
WEIGHT_LEVEL = 64  # weights are integers in [-64, 64], as `graft export int8` writes them (see graft.export.int8)
LARGEST = 255  # activations are integers in [0, 255] with a zero among them
SMALLEST = 1e-12  # scale, of what is all zeros
RANGE = "input_range"  # the name of a layer's part that rounds its inputs


class Quantize(Compression):
    """Rounds weights and inputs of every layer; gradients pass as if it did not (Jacob et al., CVPR 2018).

    Weights have one scale for each output channel, that of their largest magnitude. Inputs have one range for each
    layer, a moving average of their smallest and largest values in training with `range_momentum`; it begins with
    `calibration_samples` training samples. Rounding begins with `start_epoch`. Convolutions keep their scales where
    BatchNorm is folded into them, so that an exported file has the same integers.
    """

    changes_weights = True
    changes_network_in_training = True
    rounds = True
    takes_adapters = False

    def __init__(
        self,
        start_epoch: Natural = 0,
        range_momentum: Annotated[float, Interval(gt=0, le=1)] = 0.01,
        calibration_samples: Count = 128,
    ) -> None:
        super().__init__()
        self.start_epoch = start_epoch
        self.range_momentum = range_momentum
        self.calibration_samples = calibration_samples
        self.layers: dict[str, nn.Module] = {}  # that round, by name
        self.hooks: list[RemovableHandle] = []
        self.left_out: list[str] = []  # layers that the network reads without calling them
        self.ranges: dict[str, list[float]] = {}  # learned, by layer; once finished

    def prepare(self, context: CompressionContext, saved: Mapping[str, Any] | None) -> None:
        """Put rounding into the layers of the backbone and the heads, and take the first ranges."""
        if saved is not None:
            check_resumed(KIND, saved)
        called = {name for name, _ in network_outputs(context.backbone)}
        for name, layer in layers_of(context):
            if name.startswith("backbone.network.") and name.removeprefix("backbone.network.") not in called:
                self.left_out.append(name)
                continue
            layer.add_module(RANGE, InputRange(self.range_momentum).to(layer.weight.device))
            self.hooks.append(layer.register_forward_pre_hook(round_inputs))
            parametrize.register_parametrization(layer, "weight", RoundedWeight())
            self.layers[name] = layer
        if saved is None:
            self.calibrate(context)
        self.set_rounding(self.start_epoch == 0 if saved is None else saved["rounds"])

    @torch.no_grad()
    def calibrate(self, context: CompressionContext) -> None:
        """Begin ranges with what the pretrained network sees; frozen layers keep these."""
        head, device = context.target_head, next(context.backbone.parameters()).device
        modes = {module: module.training for part in (context.backbone, head) for module in part.modules()}
        context.backbone.eval()
        head.eval()
        for one in self.input_ranges():
            one.train()
        for batch in context.samples(self.calibration_samples):
            head(seen_by(head, context.backbone, batch.to(device).inputs))
        for module, mode in modes.items():
            module.training = mode

    def input_ranges(self) -> Iterator["InputRange"]:
        """Of every layer."""
        return (layer.get_submodule(RANGE) for layer in self.layers.values())  # type: ignore[misc]

    def set_rounding(self, rounds: bool) -> None:
        """Round from now on, or not."""
        for layer in self.layers.values():
            layer.get_submodule(RANGE).rounds = rounds  # type: ignore[assignment]
            layer.get_submodule("parametrizations.weight.0").rounds = rounds  # type: ignore[assignment]

    @property
    def has_begun(self) -> bool:
        """Whether layers round by now."""
        return any(one.rounds for one in self.input_ranges())

    def begin_epoch(self, epoch: int) -> bool:
        """Begin to round where it is time."""
        if epoch >= self.start_epoch and not self.has_begun:
            self.set_rounding(True)
        return False

    def may_choose(self, epoch: int) -> bool:
        """Once it rounds."""
        return epoch >= self.start_epoch

    def state(self) -> dict[str, Any]:
        """Whether it rounds; ranges are in the network's state."""
        return {"kind": KIND, "rounds": self.has_begun}

    def finish(self) -> bool:
        """Leave rounded weights in plain layers, and note the ranges; activations are floats again."""
        self.set_rounding(True)
        for name, layer in self.layers.items():
            input_range = layer.get_submodule(RANGE)
            assert isinstance(input_range, InputRange)
            self.ranges[name] = [float(input_range.low), float(input_range.high)]
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
            delattr(layer, RANGE)
        for hook in self.hooks:
            hook.remove()
        return True

    def results(self) -> dict[str, Any]:
        """Layers that learned with rounding, the ranges of their inputs, and layers that did not."""
        note = f"{len(self.layers)} layers trained with 8-bit weights and inputs; tested with the weights rounded only"
        found = {"layers": len(self.layers), "left_out": self.left_out, "ranges": self.ranges}
        return {"kind": KIND, "note": note, **found}


def layers_of(context: CompressionContext) -> Iterator[tuple[str, Any]]:
    """Convolutions and linear layers of the backbone and the heads, by name."""
    parts = {"backbone": context.backbone, **{f"heads.{name}": head for name, head in context.heads.items()}}
    for part, network in parts.items():
        for name, module in list(network.named_modules()):
            if isinstance(module, LAYERS):
                yield f"{part}.{name}".rstrip("."), module


class RoundedWeight(nn.Module):
    """Weights `(K, ...)` as multiples of a 64th of the largest one of their output channel."""

    rounds = False

    def forward(self, weight: Tensor) -> Tensor:
        """The same shape; gradients as of the identity."""
        if not self.rounds:
            return weight
        scale = weight.detach().float().flatten(1).abs().amax(1).clamp_min(SMALLEST)
        zeros = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(
            weight.float(), scale / WEIGHT_LEVEL, zeros, 0, -WEIGHT_LEVEL, WEIGHT_LEVEL
        ).to(weight.dtype)


class InputRange(nn.Module):
    """A layer's inputs rounded to 256 levels of their range, which is learned in training mode."""

    rounds = False
    low: Tensor
    high: Tensor
    batches: Tensor

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        for name in ("low", "high"):
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape; values outside of the range become its ends."""
        if self.training:
            self.observe(x.detach())
        if not self.rounds:
            return x
        scale = ((self.high - self.low) / LARGEST).clamp_min(SMALLEST)
        zero = (-self.low / scale).round().clamp(0, LARGEST).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, 0, LARGEST).to(x.dtype)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Move the range, which always holds 0, towards that of a batch; one that is not finite says nothing."""
        low, high = x.float().aminmax()
        if not bool(low.isfinite() & high.isfinite()):
            return
        share = self.momentum if int(self.batches) else 1.0
        self.low.lerp_(low.clamp_max(0), share)
        self.high.lerp_(high.clamp_min(0), share)
        self.batches.add_(1)


def round_inputs(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Forward pre-hook of a layer that has an InputRange."""
    return (layer.get_submodule(RANGE)(inputs[0]), *inputs[1:])
