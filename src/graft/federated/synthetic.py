"""The one round of FedPFT: clients' mixtures of features, and the split of features that the server draws."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from graft.backbones.base import Backbone
from graft.backbones.split_backbone import FEATURES
from graft.cache.disk import DiskCache
from graft.cache.extract import extract
from graft.callbacks.frozen_features import FrozenFeatures
from graft.data.module import TransferDataModule
from graft.data.samples import Split, seed_of, sha256
from graft.errors import Diverged, GraftError, listed
from graft.federated import mixtures
from graft.federated.federation import Federation
from graft.federated.fedpft import FedPFT
from graft.federated.partition import generator_of
from graft.module import TransferModule
from graft.training.lightning import data_of


def drawn_by_server(
    federation: Federation, backbone: Backbone, data: TransferDataModule, cache: DiskCache
) -> tuple[Tensor, Tensor]:
    """Features `(N, D)` and classes `(N,)` that the server draws from what the clients of the one round send.

    Notes the round in the federation's history. Raises Diverged where no answer can be used.
    """
    method = federation.method
    assert isinstance(method, FedPFT)
    found = extract(backbone, data, "target", "train", cache)
    features, labels = found.features.numpy(), cast(Tensor, found.labels).numpy()
    this = federation.plan.round(0)
    sent, bad, drawn, classes = 0, list[int](), list[np.ndarray](), list[np.ndarray]()
    for client in (visit.client for visit in this.visits):
        own = federation.clients.train[client].numpy()
        messages = {
            int(one): mixtures.fit(
                features[own[labels[own] == one]],
                method.components,
                method.covariance,
                method.floor,
                seed_of(federation.seed, "mixture", client, int(one)) % 2**32,
            )
            for one in np.unique(labels[own])
        }
        sent += sum(message.bytes for message in messages.values())
        if federation.is_corrupt(0, client) or not all(message.is_finite for message in messages.values()):
            bad.append(client)
            continue
        for one, message in messages.items():
            random = generator_of(federation.seed, "drawn", client, one)
            drawn.append(message.draw(message.samples, random))
            classes.append(np.full(message.samples, one, dtype=np.int64))
    names = listed([federation.name(client) for client in bad], 10)
    if bad and (not drawn or method.on_bad_client == "stop"):
        raise Diverged(
            f"Diverged: the answer of client {names} holds NaN or infinity. Look at the samples of these clients, or "
            "at the backbone's weights."
        )
    federation.history = [
        {
            "clients": len(this.visits) - len(bad),
            "dropped": list(this.dropped),
            "rejected": bad,
            "bytes_down": 0,
            "bytes_up": sent,
        }
    ]
    return torch.from_numpy(np.concatenate(drawn)), torch.from_numpy(np.concatenate(classes))


class DrawnFeatures(FrozenFeatures):
    """Lets training read features that the server drew; validation and test read those of real samples."""

    drawn: Tensor | None = None  # (N, D)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Cut the backbone, and put the drawn features in the place of the training samples."""
        super().on_train_epoch_start(trainer, pl_module)
        module = cast(TransferModule, pl_module)
        if module.cut is None or module.cut.name != FEATURES:
            raise GraftError(
                "federated=fedpft: the server trains a head on features, but this network does not end in features of "
                "a frozen backbone. Use strategy=frozen and head=linear or mlp."
            )
        data_of(trainer).stored["target", "train"] = cast(Any, self.drawn)

    def _rows(
        self,
        trainer: pl.Trainer,
        place: Any,
        later: Any,
        domain: str,
        split_name: str,
        view: Any = None,
        shift: str | None = None,
    ) -> Any:
        """Nothing is kept of training samples, which the server does not have."""
        if split_name == "train":
            return None
        return super()._rows(trainer, place, later, domain, split_name, view, shift)


def in_place_of_samples(data: TransferDataModule, features: Tensor, classes: Tensor) -> None:
    """Let the target's training split be features and classes that the server drew."""
    fingerprint = sha256([b"drawn", features.numpy().tobytes(), classes.numpy().tobytes()])
    target = data.domains["target"]
    data.domains = data.domains | {"target": replace(target, train=Split(features, classes, fingerprint))}
