"""Statistics of BatchNorm that fit the weights before these are validated (`training.recalibrate_bn`)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from graft.inputs.base import Batch
from graft.module import TransferModule
from graft.training.lightning import data_of
from graft.training.normalization import batchnorms
from graft.weights.averaging import network, recompute_statistics, training_batches

FORGOTTEN = 0.01  # what is left of the statistics before training, where they no longer matter
GAP, LEAST_GAP = 1.2, 0.05  # how much larger a training batch's loss may be with running statistics than with its own


class RecalibrateBatchNorm(Callback):
    """Computes the statistics of BatchNorm layers that train again, over an epoch of training batches.

    Running statistics are a moving average: after few steps they are still those of the network's beginning, and where
    weights move fast they lag behind. A validation then scores a network that nobody trained. They are computed again
    before a validation where more than FORGOTTEN of the first ones is left in any layer, or where a training batch's
    loss with running statistics is more than GAP times, and LEAST_GAP above, that with its own.
    """

    def __init__(self) -> None:
        self.times = 0
        self._layers: list[_BatchNorm] = []  # of backbone and heads, while a fit runs
        self._batches: list[int] = []  # that each of them has trained on

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the layers, which takes too long for every step."""
        assert isinstance(pl_module, TransferModule)
        self._layers = batchnorms(network(pl_module))
        self._batches = self._batches or [0] * len(self._layers)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count what the layers have seen."""
        for place, layer in enumerate(self._layers):
            self._batches[place] += layer.training

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute the statistics where they do not fit."""
        assert isinstance(pl_module, TransferModule)
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        with trainer.precision_plugin.forward_context():
            if trainer.strategy.broadcast(self._early() or self._lags(pl_module, trainer)):
                recompute_statistics(pl_module, lambda: training_batches(trainer, int(trainer.num_training_batches)))
                self.times += 1

    def _trained(self) -> list[tuple[_BatchNorm, int]]:
        """Layers that have trained, each with its number of batches."""
        return [(layer, number) for layer, number in zip(self._layers, self._batches, strict=True) if number]

    def _early(self) -> bool:
        """Whether a layer that trains still has much of its first statistics."""
        moving = ((layer.momentum, number) for layer, number in self._trained() if layer.momentum is not None)
        return any((1 - momentum) ** number > FORGOTTEN for momentum, number in moving)

    def _lags(self, module: TransferModule, trainer: pl.Trainer) -> bool:
        """Whether a training batch's loss is much larger with the running statistics."""
        if not (trained := self._trained()):
            return False
        found = data_of(trainer).train_batch(trainer.current_epoch, 0, trainer.global_rank, stored=True)
        batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(found))
        running = loss_of(module, batch)
        with batch_statistics(layer for layer, _ in trained):
            own = loss_of(module, batch)
        return running > max(GAP * own, own + LEAST_GAP)

    def state_dict(self) -> dict[str, Any]:
        """What the layers have seen."""
        return {"batches": self._batches, "times": self.times}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._batches, self.times = state_dict["batches"], state_dict["times"]


@torch.no_grad()
def loss_of(module: TransferModule, batch: Batch) -> float:
    """Mean loss of a batch's domains in the module's present mode."""
    losses: list[Tensor] = list(module.domain_losses(batch, module.domain_outputs(batch)).values())
    return float(torch.stack(losses).mean()) if losses else 0.0


@contextmanager
def batch_statistics(layers: Iterable[_BatchNorm]) -> Iterator[None]:
    """Let layers use the batch's statistics inside the block, and keep their own as they are."""
    layers = list(layers)
    kept = [(layer.training, layer.track_running_stats) for layer in layers]
    for layer in layers:
        layer.training, layer.track_running_stats = True, False
    try:
        yield
    finally:
        for layer, (training, tracks) in zip(layers, kept, strict=True):
            layer.training, layer.track_running_stats = training, tracks
