"""Test and predictions of a job that trained in a stack: what its Trainer would make of the same kept features."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch

from graft.backbones.split_backbone import FEATURES, SplitBackbone, eval_mode
from graft.cache.rows import Rows
from graft.data.loader import EvalLoader
from graft.data.module import TransferDataModule
from graft.module import TransferModule


class HeadEvaluator:
    """Tests and predicts without what a Trainer does around its batches, most of what a small head's test takes.

    `rows` are features by domain and split. What has none, such as the target under a shift, is the Trainer's to test.
    """

    def __init__(self, trainer: pl.Trainer, data: TransferDataModule, rows: Mapping[tuple[str, str], Rows]) -> None:
        self.trainer = trainer
        self.data = data
        self.rows = rows
        self.limit_val_batches = trainer.limit_val_batches
        self.callback_metrics: Mapping[str, Any] = {}

    def test(self, model: TransferModule, dataloaders: TransferDataModule, *, verbose: bool = True) -> None:
        """Collect test metrics and predictions, and log them."""
        if dataloaders.test_shift is not None:
            self.trainer.test(model, dataloaders, verbose=verbose)
            self.callback_metrics = self.trainer.callback_metrics
            return
        model.on_test_start()
        with self.kept(model):
            for loader in dataloaders.test_dataloader():
                for place, batch in enumerate(loader):
                    model.test_step(self.trainer.precision_plugin.convert_input(batch), place)
        self.callback_metrics = logged(model.test_values())
        for logger in self.trainer.loggers:
            logger.log_metrics({**self.callback_metrics, "epoch": self.trainer.current_epoch}, self.trainer.global_step)
            logger.save()

    def predict(self, model: TransferModule, dataloaders: EvalLoader) -> list[Any]:
        """What the network says of each batch of kept samples."""
        with self.kept(model):
            convert = self.trainer.precision_plugin.convert_input
            return [model.predict_step(convert(batch), place) for place, batch in enumerate(dataloaders)]

    @contextmanager
    def kept(self, module: TransferModule) -> Iterator[None]:
        """Let the data give features, and the heads take them, inside of the block."""
        module.cut = SplitBackbone(module.backbone, FEATURES)
        self.data.stored.update(self.rows)
        try:
            with eval_mode(module.heads), torch.no_grad(), self.trainer.precision_plugin.forward_context():
                yield
        finally:
            self.data.stored.clear()
            module.cut = None


def logged(values: Mapping[str, Any]) -> dict[str, float]:
    """Values as a Trainer logs them, in single precision."""
    return {name: float(torch.as_tensor(value, dtype=torch.float32)) for name, value in values.items()}
