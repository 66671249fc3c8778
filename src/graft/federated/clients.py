"""The clients of a federation: what each holds of the target's splits."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from graft.data.samples import DomainData, Split
from graft.data.stream import whole
from graft.errors import GraftError, listed
from graft.federated.partition import (
    FEWEST,
    by_value,
    dirichlet,
    dirichlet_by_class,
    generator_of,
    iid,
    in_proportion,
)

if TYPE_CHECKING:
    from graft.federated.base import Federated

NOBODY = -1  # who owns a sample whose value no client has


@dataclass(frozen=True)
class Clients:
    """Names, indices `(n_k,)` of each client's training samples, and owners `(N,)` of other splits' samples."""

    names: tuple[str, ...]
    train: tuple[Tensor, ...]
    owners: dict[str, Tensor]  # of `val` and `test`

    def __len__(self) -> int:
        return len(self.names)

    def share(self, split: str, client: int) -> Tensor:
        """Indices `(M,)` of a client's samples of `val` or `test`."""
        return torch.nonzero(self.owners[split] == client).flatten()


def divide(method: "Federated", target: DomainData) -> Clients:
    """Divide the target's samples as the config asks; GraftError for a division that cannot be."""
    names, train = training_shares(method, target)
    if few := [name for name, indices in zip(names, train, strict=True) if len(indices) < FEWEST]:
        raise GraftError(
            f"federated.partition={method.partition}: {len(few)} of {len(names)} clients would have fewer than "
            f"{FEWEST} of {len(target.train)} training samples ({listed(few, 5)}). Set fewer "
            "federated.clients, or give more samples."
        )
    splits = {"val": target.val, "test": target.test}
    owners = {name: owners_of(method, name, split, target, names, train) for name, split in splits.items()}
    return Clients(tuple(names), tuple(train), owners)


def training_shares(method: "Federated", target: DomainData) -> tuple[list[str], list[Tensor]]:
    """Names of the clients, and the indices of the training samples that each has."""
    train = whole(target.train)
    if method.partition in ("column", "sources"):
        names, shares = by_value(values_of(method, train, target))
        if len(names) < 2:
            raise GraftError(
                f"federated.partition={method.partition}: every training sample has the same value, which makes one "
                "client. Use federated.partition=iid federated.clients=10."
            )
        return names, shares
    number = method.clients or 1
    names, random = [str(client) for client in range(number)], generator_of(method.partition_seed, "clients")
    if number * FEWEST > len(train):
        raise GraftError(
            f"federated.clients={number}: {len(train)} training samples are too few, each client needs {FEWEST}. Set "
            f"federated.clients={max(1, len(train) // FEWEST)} or fewer."
        )
    if method.partition == "iid":
        return names, iid(len(train), number, random)
    labels = classes_of(method, train, target)
    if method.partition == "dirichlet":
        return names, dirichlet(labels, number, method.beta, random)
    if not (found := dirichlet_by_class(labels, number, method.beta, random)):
        raise GraftError(
            f"federated.partition=dirichlet_by_class federated.beta={method.beta:g}: no draw gives each of {number} "
            f"clients {FEWEST} training samples. Set a larger federated.beta or fewer federated.clients."
        )
    return names, found


def values_of(method: "Federated", split: Split, target: DomainData) -> Any:
    """The value of each sample that says whose it is; GraftError where there is none."""
    if method.partition == "sources":
        if split.sources is None:
            raise GraftError(
                "federated.partition=sources: the target is one source. Use data/domain@data.target=several, or "
                "another federated.partition."
            )
        return [target.sources[number] for number in split.sources.tolist()]
    column = method.column or ""
    if column not in split.columns:
        there = listed(list(split.columns), 10) or "none"
        raise GraftError(f"federated.column={column}: the target has no such column. There are: {there}.")
    return split.columns[column]


def classes_of(method: "Federated", split: Split, target: DomainData) -> np.ndarray:
    """One class `(N,)` of each sample; GraftError where samples have none."""
    if target.classes is None or split.labels is None or getattr(split.labels, "ndim", 2) != 1:
        raise GraftError(
            f"federated.partition={method.partition} goes by classes, and this target has none a sample. Use "
            "federated.partition=iid or column."
        )
    return split.labels.numpy()


def owners_of(
    method: "Federated", name: str, split: Split, target: DomainData, names: list[str], train: list[Tensor]
) -> Tensor:
    """Owner `(N,)` of each sample of a held-out split, by the same rule as in training."""
    if method.partition in ("column", "sources"):
        numbers = {value: number for number, value in enumerate(names)}
        values = values_of(method, split, target) if len(split) else []
        found = torch.tensor([numbers.get(str(value), NOBODY) for value in values], dtype=torch.int64)
        if not method.has_server and (found == NOBODY).any():
            raise GraftError(
                f"federated=local: {int((found == NOBODY).sum())} {name} samples have a value that no client has, and "
                "there is no common model to predict them. Use a federated method, or another split."
            )
        return found
    random = generator_of(method.partition_seed, "owners", name)
    if method.partition == "iid":
        owners = np.zeros(len(split), dtype=np.int64)
        for client, indices in enumerate(np.array_split(random.permutation(len(split)), len(train))):
            owners[indices] = client
        return torch.from_numpy(owners)
    labels, classes = classes_of(method, whole(target.train), target), len(target.classes or ())
    shares = np.stack([np.bincount(labels[indices.numpy()], minlength=classes) for indices in train])
    return in_proportion(split.labels.numpy(), shares, random)
