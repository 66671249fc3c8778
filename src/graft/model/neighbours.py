"""Features of the training samples that a model keeps on request: which are nearest to an input, and how near."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.errors import GraftError
from graft.files import written_whole
from graft.inspection.neighbours import nearest

PER_SAMPLES = 1000  # training samples for each neighbour that the distance goes to (Sun et al., 2022: 50 of 50,000)
SIMILARITIES = 2**26  # that are in memory at a time


@dataclass(frozen=True)
class Neighbour:
    """A training sample by its name and label (None where unlabelled), and the cosine of the angle to its features."""

    sample: str
    label: str | None
    similarity: float


@dataclass(frozen=True)
class Neighbours:
    """Features `(N, D)` of training samples, of length 1 in float16, with their names and labels."""

    features: Tensor
    samples: Sequence[str]
    labels: Sequence[str | None]

    @classmethod
    def of(cls, features: Tensor, samples: Sequence[str], labels: Sequence[str | None]) -> "Neighbours":
        """Those of features of any length."""
        return cls(F.normalize(features.float(), dim=1).half(), samples, labels)

    def nearest(self, features: Tensor, number: int) -> list[tuple[Neighbour, ...]]:
        """The training samples most similar to each of `(Q, D)`, the most similar first."""
        rows = [
            zip(values, indices, strict=True)
            for similarity, places in self._found(features, number)
            for values, indices in zip(similarity.tolist(), places.tolist(), strict=True)
        ]
        return [tuple(Neighbour(self.samples[i], self.labels[i], value) for value, i in row) for row in rows]

    def distances(self, features: Tensor) -> Tensor:
        """Distance `(Q,)` to the k-th nearest training sample, of features of length 1 (Sun et al., 2022)."""
        k = min(max(1, round(len(self.features) / PER_SAMPLES)), len(self.features))
        cosines = torch.cat([similarity[:, -1] for similarity, _ in self._found(features, k)])
        return (2 - 2 * cosines).clamp(min=0).sqrt()

    def _found(self, features: Tensor, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        rows = self.features.float()
        for queries in features.float().split(max(1, SIMILARITIES // len(rows))):
            yield nearest(queries, rows, number)


def write(file: Path, neighbours: Neighbours) -> None:
    """Write features, names and labels; no sample."""
    from safetensors.torch import save

    metadata = {"samples": json.dumps(list(neighbours.samples)), "labels": json.dumps(list(neighbours.labels))}
    with written_whole(file) as whole:
        whole.write(save({"features": neighbours.features.contiguous()}, metadata))


def read(file: Path) -> Neighbours:
    """What `write` wrote. Raises GraftError for a file that cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as content:
            metadata = content.metadata() or {}
            found = Neighbours(
                content.get_tensor("features"), json.loads(metadata["samples"]), json.loads(metadata["labels"])
            )
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise GraftError(
            f"{file} cannot be read: {error}. Take the whole folder from a copy, or remove this file: the model "
            "predicts without it."
        ) from None
    return found
