"""What a compression is: it changes the network before and while it trains, and says afterwards what it did."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from torch import Tensor, nn

from graft.backbones.base import Backbone
from graft.errors import GraftError
from graft.inputs.base import DomainBatch
from graft.strategies.base import Strategy
from graft.terms.base import Term

COMPRESSION = "compression"  # key of its state in a checkpoint


class NoCompression(TypedDict):
    """The keys of `compress=none`."""


@dataclass
class CompressionContext:
    """What a compression can ask for; nothing here is in a checkpoint."""

    backbone: Backbone  # the one that trains, with its pretrained weights, as the strategy prepared it
    heads: Mapping[str, nn.Module]
    target_head: nn.Module
    epochs: int  # of the fit
    trained: frozenset[str]  # names of the backbone's parameters that train in some phase
    # As many target training samples in batches, always the same ones, without augmentation, on the CPU
    samples: Callable[[int], Iterable[DomainBatch]]
    loss: Callable[[Tensor, Tensor], Tensor]  # the target's mean loss of logits (B, K) and labels (B,)


class Compression(nn.Module):
    """What compresses the network of a run; as it is, nothing.

    Its buffers are in checkpoints. Whatever it needs beside them to go on is `state`, of plain values.
    """

    changes_weights = False  # True: a mean of several networks' weights is not compressed as each of them is
    changes_network_in_training = False  # True: other weights, or other layers, than the optimizer alone would give
    replaces_parameters = False  # True: the network's tensors get other shapes
    rounds = False  # True: layers compute otherwise than their weights say
    needs_training_backbone = False
    takes_adapters = True  # False: refused with strategies that put layers of their own into the network

    def terms(self) -> dict[str, Term]:
        """Terms that it adds to the objective, by name; they are built before the data's views are chosen."""
        return {}

    def check(self, backbone: Backbone, strategy: Strategy) -> None:
        """Raise GraftError for a network that it cannot compress: before pretraining, on random weights."""

    def prepare(self, context: CompressionContext, saved: Mapping[str, Any] | None) -> None:
        """Look at or change the pretrained network, before the terms and the optimizer see it.

        `saved` is the `state` of the checkpoint that the run goes on from: the network must have the same tensors
        afterwards as the one that was saved.
        """

    def begin_epoch(self, epoch: int) -> bool:
        """Called before an epoch (from 0), maybe twice. Returns whether parameters were replaced by others."""
        return False

    def after_step(self, step: int, progress: float) -> None:
        """Called after each optimizer step; `step` is its number, from 1, `progress` the fraction that is done."""

    def before_validation(self) -> None:
        """Called when the weights are in the network that a validation or a test is of, such as an average."""

    def may_choose(self, epoch: int) -> bool:
        """Whether the weights at an epoch's end are compressed as asked, so that they may be selected."""
        return True

    def state(self) -> dict[str, Any]:
        """Plain values that the checkpoint keeps beside the buffers."""
        return {}

    def finish(self) -> bool:
        """Give the selected weights the form that is kept and deployed; False where they have it already."""
        return False

    def results(self) -> dict[str, Any] | None:
        """What the run's record says of it, with a `kind` and a `note` for people; None without a compression."""
        return None

    def resized(self) -> dict[str, list[int]]:
        """Shape of every tensor of the backbone that the compression gave another one, for the model's description."""
        return {}


def check_resumed(kind: str, saved: Mapping[str, Any]) -> None:
    """GraftError where the checkpoint to go on from was trained with another compression, or with none."""
    if saved.get("kind") != kind:
        before = saved.get("kind", "none")
        raise GraftError(
            f"resume with compress={kind}: the checkpoint was trained with compress={before} and goes on with that "
            f"only. Use compress={before}, or start from its weights: backbone.weights=<checkpoint>."
        )
