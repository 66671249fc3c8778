"""Statistics of BatchNorm that fit the weights before these are validated (`training.recalibrate_bn`)."""

from collections import Counter
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
from graft.weights.averaging import recompute_statistics, training_batches

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
        self._batches: Counter[str] = Counter()  # that each layer has trained on

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count what the layers have seen."""
        self._batches.update(name for name, module in self._layers(pl_module) if module.training)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute the statistics where they do not fit."""
        assert isinstance(pl_module, TransferModule)
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        with trainer.precision_plugin.forward_context():
            if trainer.strategy.broadcast(self._early(pl_module) or self._lags(pl_module, trainer)):
                recompute_statistics(pl_module, lambda: training_batches(trainer))
                self.times += 1

    def _layers(self, module: pl.LightningModule) -> list[tuple[str, _BatchNorm]]:
        return [(name, one) for name, one in module.named_modules() if isinstance(one, _BatchNorm)]

    def _early(self, module: TransferModule) -> bool:
        """Whether a layer that trains still has much of its first statistics."""
        left = [
            (1 - layer.momentum) ** self._batches[name]
            for name, layer in self._layers(module)
            if self._batches[name] and layer.momentum is not None
        ]
        return bool(left) and max(left) > FORGOTTEN

    def _lags(self, module: TransferModule, trainer: pl.Trainer) -> bool:
        """Whether a training batch's loss is much larger with the running statistics."""
        if not self._batches:
            return False
        found = data_of(trainer).train_batch(trainer.current_epoch, 0, trainer.global_rank)
        batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(found))
        running = loss_of(module, batch)
        with batch_statistics(layer for name, layer in self._layers(module) if self._batches[name]):
            own = loss_of(module, batch)
        return running > max(GAP * own, own + LEAST_GAP)

    def state_dict(self) -> dict[str, Any]:
        """What the layers have seen."""
        return {"batches": dict(self._batches), "times": self.times}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._batches, self.times = Counter(state_dict["batches"]), state_dict["times"]


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
