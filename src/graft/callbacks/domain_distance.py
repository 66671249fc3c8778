"""Logs how far apart each validation sees source and target, from features that it computes anyway."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from graft.inspection.domain_distance import ROWS, domain_distance
from graft.model.save import gathered, in_order
from graft.selection.candidate import fixed_rows
from graft.training.lightning import data_of

DOMAINS = ("source", "target")
LOGGED = "val/proxy_a_distance"


class LogDomainDistance(Callback):
    """Logs the proxy A-distance of what alignment terms act on, on the same validation rows at every epoch.

    No label of the target is used, and nothing is drawn from the run's random state.
    """

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with no rows."""
        splits = {domain: data_of(trainer).domains[domain].val for domain in DOMAINS}
        self._rows = {domain: fixed_rows(len(split), ROWS) for domain, split in splits.items()}
        self._kept: dict[str, list[tuple[Tensor, Tensor]]] = {domain: [] for domain in DOMAINS}

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a batch's embeddings of the fixed rows."""
        for domain, embedded in outputs.items():
            indices = batch[domain].indices.cpu()
            chosen = torch.isin(indices, self._rows[domain])
            self._kept[domain].append((indices[chosen], embedded.float().cpu()[chosen]))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the distance, where enough rows were validated."""
        kept = [gathered(self._kept[domain]) for domain in DOMAINS]
        if all(kept) and (found := domain_distance(*(in_order(one)[1] for one in kept))):
            pl_module.log(LOGGED, found.value, sync_dist=True)  # the same on every process
