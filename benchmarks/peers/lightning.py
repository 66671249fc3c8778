"""The least that Lightning needs: a module, a loader, no logger, no bar, no checkpoint."""

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import networks
from benchmarks.peers.bare import tensors
from benchmarks.turns import Plan, Turn
from graft.training.trainer import quieten_lightning


class Minimal(pl.LightningModule):
    """A training step and an optimizer."""

    def __init__(self, network: nn.Module, lr: float) -> None:
        super().__init__()
        self.network = network
        self.lr = lr

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch."""
        images, labels = batch
        return F.cross_entropy(self.network(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Turns(pl.Callback):
    """Takes a turn at the begin of each epoch."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the clock of the epoch before and wait."""
        self.turn.begin()


def fit(plan: Plan, turn: Turn) -> None:
    """Lightning with everything switched off."""
    quieten_lightning()
    trainer = pl.Trainer(
        max_epochs=plan.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Turns(turn)],
    )
    loader = DataLoader(TensorDataset(*tensors(plan)), plan.batch_size, shuffle=True)
    trainer.fit(Minimal(networks.build(plan.network), plan.lr), loader)
