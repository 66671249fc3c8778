"""Batches of a round, client after client; and of a held-out split, each of one client's samples."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from graft.data.samples import seed_of
from graft.data.sampling import EvalBatches, Key, TrainBatches
from graft.federated.plan import Plan


def batches_of_client(
    samples: int, batch_size: int, seed: tuple[object, ...], client: int | str, steps: int | None
) -> TrainBatches:
    """A client's own batches; the first client's are those of plain training with the same seed."""
    return TrainBatches(samples, batch_size, seed if client == 0 else (*seed, "client", client), steps)


class ClientBatches(TrainBatches):
    """Training batches of a federation: an epoch is a round, in which clients take their steps one after the other.

    Indices are those of the whole split. What is drawn is a function of (seed, round, client); `drawn_by` are the
    clients' numbers or names, where they are not those of the shares.
    """

    def __init__(
        self,
        shares: Sequence[Tensor],
        batch_size: int,
        seed: tuple[object, ...],
        plan: Plan,
        local_steps: int | None,
        epoch: int,
        drawn_by: Sequence[int | str] | None = None,
    ) -> None:
        super().__init__(sum(map(len, shares)), batch_size, seed)
        self.shares, self.plan, self.local_steps, self.epoch = shares, plan, local_steps, epoch
        self._own = [
            batches_of_client(len(share), batch_size, seed, client, local_steps)
            for client, share in zip(range(len(shares)) if drawn_by is None else drawn_by, shares, strict=True)
        ]

    def __len__(self) -> int:
        return self.plan.round(self.epoch).steps

    def key(self, step: int, rank: int) -> Key:
        """The batch of a step of the round."""
        visit, local = self.plan.round(self.epoch).at(step)
        own = self._own[visit.client]
        passes = visit.steps // len(own)  # over the client's samples in a round, the local epochs
        own.set_epoch(self.epoch * passes + local // len(own))
        seed, indices = own.key(local % len(own), 0)
        return seed, self.shares[visit.client][indices]


class OwnersBatches(EvalBatches):
    """Every sample of a held-out split once, in batches that hold samples of one owner each."""

    def __init__(self, owners: Tensor, batch_size: int) -> None:
        super().__init__(len(owners), batch_size)
        self._batches = [
            batch
            for owner in owners.unique().tolist()
            for batch in torch.nonzero(owners == owner).flatten().split(batch_size)
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Key]:
        for step, indices in enumerate(self._batches):
            yield seed_of(self.seed, "batch", step), indices
