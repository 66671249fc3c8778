"""Unstructured pruning: the smallest weights become zero, gradually, while the others train on."""

from collections.abc import Mapping
from typing import Annotated, Any, cast

import torch
from annotated_types import Interval
from torch import nn
from torch.nn.utils.prune import L1Unstructured

from graft.compress.base import Compression, CompressionContext, check_resumed
from graft.config.types import Count, FractionBelowOne
from graft.errors import GraftError

KIND = "magnitude"
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class Magnitude(Compression):
    """Zeroes the weights of smallest magnitude over all layers of the backbone that train, biases and norms left out.

    The fraction of zeros rises as `sparsity * (1 - (1 - t)^3)` while t goes from 0 to 1 between the fractions `start`
    and `end` of the optimizer steps (Zhu & Gupta, 2017), every `every_steps` steps. What is zero stays zero. The file
    is no smaller and nothing is faster by itself: that takes a compressed file or kernels for sparse weights.
    """

    changes_weights = True
    changes_network_in_training = True
    takes_adapters = False
    needs_training_backbone = True

    def __init__(
        self,
        sparsity: Annotated[float, Interval(gt=0, lt=1)] = 0.8,
        start: FractionBelowOne = 0.0,
        end: Annotated[float, Interval(gt=0, le=1)] = 0.75,
        every_steps: Count = 10,
    ) -> None:
        super().__init__()
        self.sparsity = sparsity
        self.start = start
        self.end = end
        self.every_steps = every_steps
        self.reached = 0.0  # fraction of zeros that was asked for last
        self.masks = nn.Module()  # a buffer for each weight, 1 where it stays
        self.weights: dict[str, nn.Parameter] = {}  # by the names of their masks

    def prepare(self, context: CompressionContext, saved: Mapping[str, Any] | None) -> None:
        """Make a mask for every weight that trains; those of a checkpoint come with the network's state."""
        if saved is not None:
            check_resumed(KIND, saved)
            self.reached = saved["reached"]
        for name, module in context.backbone.named_modules():
            if isinstance(module, LAYERS) and f"{name}.weight" in context.trained:
                mask = name.replace(".", "/")
                self.weights[mask] = cast(nn.Parameter, module.weight)
                self.masks.register_buffer(mask, torch.ones_like(module.weight, dtype=torch.bool))
        if not self.weights:
            raise GraftError(
                f"compress=magnitude: no convolution or linear layer of {context.backbone.name} trains with this "
                "strategy. Use strategy=full."
            )

    def target(self, progress: float) -> float:
        """The fraction of zeros at a fraction of the steps."""
        t = min(1.0, max(0.0, (progress - self.start) / (self.end - self.start)))
        return self.sparsity * (1 - (1 - t) ** 3)

    @torch.no_grad()
    def after_step(self, step: int, progress: float) -> None:
        """Zero more where it is time, and again what the step moved."""
        target = self.target(progress)
        due = step % self.every_steps == 0 or progress >= self.end
        self.apply_masks()
        if due and target > self.reached:
            self.choose(target)
            self.reached = target
            self.apply_masks()

    def choose(self, fraction: float) -> None:
        """Let masks keep all but this fraction of the weights, the smallest; those that are zero are among them."""
        flat = torch.cat([weight.reshape(-1) for weight in self.weights.values()])
        kept = L1Unstructured(fraction).compute_mask(flat.abs(), torch.ones_like(flat))
        pieces = kept.bool().split([weight.numel() for weight in self.weights.values()])
        for (name, weight), piece in zip(self.weights.items(), pieces, strict=True):
            self.masks.get_buffer(name).copy_(piece.view(weight.shape))

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Zero what the masks leave out."""
        if self.reached:
            for name, weight in self.weights.items():
                weight.mul_(self.masks.get_buffer(name))

    def before_validation(self) -> None:
        """An average of weights has zeros only where all of them had."""
        self.apply_masks()

    def may_choose(self, epoch: int) -> bool:
        """Once all are zero that are to be."""
        return self.reached >= self.sparsity

    def state(self) -> dict[str, Any]:
        """The fraction of zeros so far; the masks are buffers."""
        return {"kind": KIND, "reached": self.reached}

    def finish(self) -> bool:
        """Zero what a mean of epochs may have moved; the weights are plain ones already."""
        self.apply_masks()
        return False

    def results(self) -> dict[str, Any]:
        """Zeros among the weights of the layers that train, and their number."""
        zeros = sum(int((weight == 0).sum()) for weight in self.weights.values())
        total = sum(weight.numel() for weight in self.weights.values())
        note = f"{zeros / total:.1%} of {total:,} weights in layers that train are zero"
        return {"kind": KIND, "note": note, "sparsity": zeros / total, "of_weights": total}
