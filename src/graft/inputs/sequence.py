"""Sequences of vectors: their spec, and how they become what a backbone takes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from graft.cache.disk import DiskCache
from graft.data.samples import Samples, Split, check_unchanged, rows_of, sha256
from graft.errors import GraftError
from graft.inputs.base import Fields


@dataclass(frozen=True)
class SequenceSpec:
    """How many values a step has."""

    input_size: int

    def __str__(self) -> str:
        return f"vectors of {self.input_size:,} numbers"

    def transform(self, augment: str = "none", shift: str | None = None) -> Any:
        """Sequences of such steps, in batches."""

        return SequenceTransform(self, augment, shift)


@dataclass(frozen=True)
class Sequences:
    """Values `(N, L, D)`, and of each sequence how many of its L vectors belong to it, `(N,)`, one at least."""

    values: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, indices: Tensor) -> "Sequences":
        return Sequences(self.values[indices], self.lengths[indices])

    def joined(self, others: "Sequences") -> "Sequences":
        """These sequences, and behind them others; what is shorter is padded with zeros."""
        longest = max(self.values.shape[1], others.values.shape[1])
        values = [
            torch.nn.functional.pad(one.values, (0, 0, 0, longest - one.values.shape[1])) for one in (self, others)
        ]
        return Sequences(torch.cat(values), torch.cat([self.lengths, others.lengths]))

    @property
    def mask(self) -> Tensor:
        """1 where a vector belongs to a sequence, else 0, `(N, L)`."""
        return (torch.arange(self.values.shape[1]) < self.lengths[:, None]).long()


class SequenceTransform:
    """Sequences to `Fields` of values `(B, L, D)` and a mask `(B, L)`, L being the longest of the batch."""

    augment = None

    def __init__(self, spec: "SequenceSpec", augment: str = "none", shift: str | None = None) -> None:
        check_unchanged("sequences", augment, shift)
        self.spec = spec

    @property
    def key(self) -> str:
        """The size of a vector in words."""
        return repr(self.spec)

    def prepare(self, split: Split, cache: DiskCache | None) -> Sequences:
        """The split's sequences."""
        sequences = rows_of(split)
        if sequences.values.shape[2] != self.spec.input_size:
            raise GraftError(
                f"Sequences of {sequences.values.shape[2]} values a step cannot feed a backbone that takes "
                f"{self.spec.input_size}. Source and target need the same number."
            )
        return sequences

    def collate(self, sequences: Sequences) -> Fields:
        """Without what is behind the longest sequence of the batch."""
        longest = int(sequences.lengths.max())
        return Fields({"values": sequences.values[:, :longest], "mask": sequences.mask[:, :longest]})


def standardised(splits: Mapping[str, Samples]) -> tuple[dict[str, Samples], dict[str, Any]]:
    """The splits with values of mean 0 and deviation 1 in each channel of train; zeros behind the ends.

    Fitted before the label budget, for which no label is needed; a channel that is constant in training becomes zero.
    Also what DomainData has to know of sequences.
    """
    train = rows_of(splits["train"])
    known = train.values[train.mask.bool()]
    mean, std = known.double().mean(0).float(), known.double().std(0, correction=0).float()
    scale = torch.where(std > 0, 1 / std, 0.0)
    fitted = sha256([mean.numpy().tobytes(), scale.numpy().tobytes()])

    encoded = {
        name: replace(samples, inputs=scaled(rows_of(samples), mean, scale), fitted=fitted)
        for name, samples in splits.items()
    }
    reading = {"mean": mean.tolist(), "scale": scale.tolist()}
    return encoded, {"backbone_arguments": {"input_size": train.values.shape[2]}, "reading": reading}


def scaled(rows: Sequences, mean: Tensor, scale: Tensor) -> Sequences:
    """Sequences less a mean `(D,)`, times a scale `(D,)`; zeros behind the ends."""
    values = torch.where(rows.mask.bool().unsqueeze(-1), (rows.values - mean) * scale, 0.0)
    return Sequences(values, rows.lengths)
