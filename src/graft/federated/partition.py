"""Which client holds which samples: at random, by class in unequal shares, or by a column of the data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graft.data.samples import seed_of

FEWEST = 2  # training samples of a client: BatchNorm cannot train on one
DRAWS = 1000  # after which a division is given up


def generator_of(*parts: object) -> np.random.Generator:
    """A numpy generator that depends on every part, and on nothing else."""
    return np.random.default_rng(seed_of(*parts))


def iid(samples: int, clients: int, random: np.random.Generator) -> list[Tensor]:
    """Indices of each client's samples, drawn at random; sizes differ by one at most."""
    return in_order(np.array_split(random.permutation(samples), clients))


def dirichlet(labels: np.ndarray, clients: int, beta: float, random: np.random.Generator) -> list[Tensor]:
    """Equally many samples a client, whose shares of the classes are drawn from Dir(beta p); p are those of all.

    Hsu, Qi and Brown (2019): a client draws its samples one by one from the classes by its shares, without
    replacement; a class of which nothing is left has no share any more.
    """
    classes, numbers = np.unique(labels, return_inverse=True)
    pools = [random.permutation(np.flatnonzero(numbers == one)) for one in range(len(classes))]
    prior = np.bincount(numbers) / len(numbers)
    sizes = [len(part) for part in np.array_split(np.arange(len(labels)), clients)]
    found: list[np.ndarray] = []
    for size in sizes:
        shares, own = random.dirichlet(beta * prior), list[np.ndarray]()
        while missing := size - sum(map(len, own)):
            left = np.array([len(pool) for pool in pools])
            usable = np.where(left > 0, np.nan_to_num(shares), 0.0)
            usable = usable if usable.sum() > 0 else left.astype(float)
            drawn = np.minimum(random.multinomial(missing, usable / usable.sum()), left)
            for one in np.flatnonzero(drawn):
                own.append(pools[one][: drawn[one]])
                pools[one] = pools[one][drawn[one] :]
        found.append(np.concatenate(own))
    return in_order(found)


def dirichlet_by_class(labels: np.ndarray, clients: int, beta: float, random: np.random.Generator) -> list[Tensor]:
    """Each class divided among the clients by shares from Dir(beta): clients differ in size too.

    Yurochkin et al. (2019), Li et al. (2022): drawn again until every client has enough. Empty where none does.
    """
    classes = np.unique(labels)
    for _ in range(DRAWS):
        parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
        for one in classes:
            pool = random.permutation(np.flatnonzero(labels == one))
            cuts = (np.cumsum(random.dirichlet(np.full(clients, beta)))[:-1] * len(pool)).astype(int)
            for own, piece in zip(parts, np.split(pool, cuts), strict=True):
                own.append(piece)
        found = [np.concatenate(own) for own in parts]
        if min(map(len, found)) >= FEWEST:
            return in_order(found)
    return []


def by_value(values: Sequence[Any]) -> tuple[list[str], list[Tensor]]:
    """The different values in order, and the indices of the samples that have each."""
    words = np.array([str(value) for value in values])
    names = sorted(set(words.tolist()))
    return names, [torch.from_numpy(np.flatnonzero(words == name)) for name in names]


def in_proportion(labels: np.ndarray, shares: np.ndarray, random: np.random.Generator) -> Tensor:
    """Owner `(N,)` of each sample, so that a client's share of a class is what it has in `shares` `(clients, K)`.

    Rounded by largest remainder: every sample has one owner. A class that no client has is divided evenly.
    """
    owners = np.zeros(len(labels), dtype=np.int64)
    for one in np.unique(labels):
        pool = random.permutation(np.flatnonzero(labels == one))
        share = shares[:, int(one)] if int(one) < shares.shape[1] else np.zeros(len(shares))
        share = share if share.sum() > 0 else np.ones(len(shares))
        exact = share / share.sum() * len(pool)
        counts = np.floor(exact).astype(int)
        remainders = np.argsort(-(exact - counts), kind="stable")[: len(pool) - counts.sum()]
        counts[remainders] += 1
        owners[pool] = np.repeat(np.arange(len(counts)), counts)
    return torch.from_numpy(owners)


def in_order(parts: Sequence[np.ndarray]) -> list[Tensor]:
    """The indices of each part from the smallest on."""
    return [torch.from_numpy(np.sort(part).astype(np.int64)) for part in parts]
