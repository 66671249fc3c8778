"""What lightning-hydra-template (ashleve) trains MNIST with: torchmetrics, CSV, checkpoint, early stopping, rich bar.

Differences from it: SGD instead of Adam, as for all contestants here, images in memory instead of decoded one by one,
and, as for Graft, validation after the last epoch only, which is not timed.
"""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, RichModelSummary, RichProgressBar
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import Accuracy

from benchmarks import networks
from benchmarks.images import load, normalised
from benchmarks.peers.bare import tensors
from benchmarks.peers.lightning import Turns
from benchmarks.turns import Plan, Turn
from graft.training.trainer import quieten_lightning


class LitModule(pl.LightningModule):
    """The template's MNISTLitModule, its logging included."""

    def __init__(self, network: nn.Module, classes: int, lr: float) -> None:
        super().__init__()
        self.network = network
        self.lr = lr
        self.criterion = nn.CrossEntropyLoss()
        self.train_acc = Accuracy(task="multiclass", num_classes=classes)
        self.val_acc = Accuracy(task="multiclass", num_classes=classes)
        self.train_loss = MeanMetric()
        self.val_loss = MeanMetric()
        self.val_acc_best = MaxMetric()

    def model_step(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, predicted classes and labels of a batch."""
        images, labels = batch
        logits = self.network(images)
        return self.criterion(logits, labels), torch.argmax(logits, dim=1), labels

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of a batch; loss and accuracy go to bar and logger."""
        loss, predictions, labels = self.model_step(batch)
        self.train_loss(loss)
        self.train_acc(predictions, labels)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """The same for validation."""
        loss, predictions, labels = self.model_step(batch)
        self.val_loss(loss)
        self.val_acc(predictions, labels)
        self.log("val/loss", self.val_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("val/acc", self.val_acc, on_step=False, on_epoch=True, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        """Keep the best accuracy so far."""
        self.val_acc_best(self.val_acc.compute())
        self.log("val/acc_best", self.val_acc_best.compute(), sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def fit(plan: Plan, turn: Turn) -> None:
    """The template's trainer with its default callbacks."""
    quieten_lightning()
    trainer = pl.Trainer(
        default_root_dir=plan.folder,
        max_epochs=plan.epochs,
        accelerator="cpu",
        check_val_every_n_epoch=plan.epochs,
        num_sanity_val_steps=0,
        logger=CSVLogger(plan.folder, name="csv"),
        callbacks=[
            ModelCheckpoint(plan.folder, filename="epoch_{epoch:03d}", monitor="val/acc", mode="max", save_last=True),
            EarlyStopping(monitor="val/acc", patience=100, mode="max", check_on_train_epoch_end=False),
            RichModelSummary(max_depth=-1),
            RichProgressBar(),
            Turns(turn),
        ],
    )
    images, labels = load(plan.images)["val"]
    trainer.fit(
        LitModule(networks.build(plan.network), networks.CLASSES[plan.network], plan.lr),
        DataLoader(TensorDataset(*tensors(plan)), plan.batch_size, shuffle=True),
        DataLoader(TensorDataset(normalised(images), labels), plan.batch_size),
    )
