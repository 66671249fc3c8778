"""A network among which rules choose: what it makes of fixed validation rows, without the target's labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytorch_lightning as pl
import torch
from torch import Tensor

from graft.backbones.outputs import features_of
from graft.cache.key import code_used
from graft.data.samples import generator
from graft.heads.base import bottleneck_of, classifier_of
from graft.inputs.base import DomainBatch, Inputs
from graft.training.lightning import data_of

if TYPE_CHECKING:
    from graft.data.module import TransferDataModule
    from graft.module import TransferModule

MAX_ROWS = 2000  # of a split: scores compare all rows with each other, and fit models on them


@dataclass(frozen=True)
class Rows:
    """What a network makes of some samples, on the CPU in double precision."""

    features: Tensor  # (N, D)
    logits: Tensor  # (N, K); K is 1 for the log-odds of the second of two classes
    labels: Tensor | None = None  # (N,); None of the target

    @property
    def probabilities(self) -> Tensor:
        """The probability of every class `(N, K)`."""
        if self.logits.shape[1] == 1:
            return torch.cat([-self.logits, self.logits], dim=1).sigmoid()
        return self.logits.softmax(dim=1)

    @property
    def predicted(self) -> Tensor:
        """The most probable class `(N,)`."""
        return self.probabilities.argmax(dim=1)

    @property
    def correct(self) -> Tensor:
        """Whether the prediction is the label `(N,)`."""
        assert self.labels is not None  # no rule asks for the target's
        return self.predicted == self.labels


class Candidate:
    """The network in a module as a validation of a Trainer sees it, for rules that bring a score()."""

    def __init__(self, module: "TransferModule", trainer: pl.Trainer) -> None:
        self.module = module
        self.trainer = trainer
        self.data: TransferDataModule = data_of(trainer)
        self._rows: dict[tuple[str, str], Rows] = {}

    def rows(self, domain: str, split: str = "val") -> Rows:
        """At most MAX_ROWS samples of a domain's `train` or `val` split, the same ones for every candidate.

        The target's have no labels.
        """
        if (domain, split) not in self._rows:
            indices = self._chosen(domain, split)
            found = [self.outputs(domain, batch) for batch in self.data.batches_of(domain, split, indices)]
            features, logits = (torch.cat(column).cpu().double() for column in zip(*found, strict=True))
            labels = getattr(self.data.domains[domain], split).labels if domain != "target" else None
            self._rows[domain, split] = Rows(features, logits, None if labels is None else labels[indices])
        return self._rows[domain, split]

    def mixed(self, partners: Tensor, weight: float) -> Rows:
        """The target's validation rows as `weight * x + (1 - weight) * x[partners]`, partners `(N,)` among the rows.

        Before a frozen part that every candidate shares, the mixtures are made and run through it once.
        """
        indices = self._chosen("target", "val")
        places = torch.arange(len(indices)).split(self.data.eval_batch_size)

        def mixtures() -> Iterator[tuple[Tensor, Inputs]]:
            pairs = [self.data.batches_of("target", "val", one, stored=False) for one in (indices, indices[partners])]
            for place, batch, other in zip(places, *pairs, strict=True):
                yield place, weight * batch.inputs + (1 - weight) * other.inputs

        stored = None
        if (keep := self.module.kept) is not None:
            mixed = {"weight": weight, "rows": indices.tolist(), "partners": partners.tolist()}
            stored = keep({"mixed": mixed, "mixed_by": code_used(__name__)}, len(indices), mixtures)
        batches = (
            (DomainBatch(inputs) for _, inputs in mixtures())
            if stored is None
            else (DomainBatch(stored=stored[place]) for place in places)
        )
        found = [self.outputs("target", batch) for batch in batches]
        features, logits = (torch.cat(column).cpu().double() for column in zip(*found, strict=True))
        return Rows(features, logits)

    @torch.no_grad()
    def outputs(self, domain: str, batch: DomainBatch) -> tuple[Tensor, Tensor]:
        """Features `(B, D)` of a batch, the embedding where the head has a bottleneck, and logits `(B, K)`."""
        trainer, module = self.trainer, self.module
        batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input({domain: batch}))[domain]
        with trainer.precision_plugin.forward_context():
            embedded = bottleneck_of(module.head(domain))(module.features(batch, domain))
            return features_of(embedded), classifier_of(module.head(domain))(embedded)

    def _chosen(self, domain: str, split: str) -> Tensor:
        """Indices of the rows; fewer where the Trainer limits validation, as debug=fast does."""
        limit = self.trainer.limit_val_batches
        most = limit * self.data.eval_batch_size if isinstance(limit, int) else MAX_ROWS
        return fixed_rows(len(getattr(self.data.domains[domain], split)), min(most, MAX_ROWS))


def fixed_rows(samples: int, most: int = MAX_ROWS) -> Tensor:
    """Indices of at most so many of a number of samples, in their order: a function of the two numbers alone."""
    if samples <= most:
        return torch.arange(samples)
    return torch.randperm(samples, generator=generator("selection rows", samples))[:most].sort().values
