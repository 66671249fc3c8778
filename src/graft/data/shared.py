"""Domains that the jobs of a sweep read once."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from graft.data.domain import Domain
from graft.data.folds import Fold
from graft.data.module import TransferDataModule
from graft.data.samples import DomainData

MAX_SHARED = 4  # domains that a process keeps: two runs' sources and targets


class Shared(Domain):
    """A domain that a process reads and decodes once for all jobs that have the same; none of them changes it."""

    loaded: ClassVar[dict[str, DomainData]] = {}

    def __init__(self, domain: Domain, settings: Mapping[str, Any]) -> None:
        self.domain = domain
        self.settings = settings
        self.others: Mapping[str, Any] | None = None  # settings of the other side, where they matter

    def beside(self, other: Domain) -> None:
        """Let both know each other."""
        if self.domain.reads_beside and isinstance(other, Shared):
            self.others = other.settings
            self.domain.key, other.domain.key = self.key, other.key
            self.domain.beside(other.domain)

    def load(self, split_seed: int, fold: Fold | None = None) -> DomainData:
        """The domain, split; read where no earlier job has."""
        of_fold = fold and (fold.evaluation, fold.number, fold.folds)
        of_classes = (self.kept_classes, self.may_lack_classes)
        name = json.dumps([self.settings, self.others, split_seed, of_fold, of_classes], sort_keys=True)
        if name not in self.loaded:
            if len(self.loaded) == MAX_SHARED:
                del self.loaded[next(iter(self.loaded))]
            self.domain.key, self.domain.cache, self.domain.kept_classes = self.key, self.cache, self.kept_classes
            self.domain.may_lack_classes |= self.may_lack_classes
            self.loaded[name] = self.domain.load(split_seed, fold)
        return self.loaded[name]


def share_domains(data: TransferDataModule, settings: Mapping[str, Any]) -> None:
    """Let the jobs of a sweep read their domains once; alone, files may have changed since an earlier run."""
    data.target = Shared(data.target, settings["target"])
    if data.source is not None:
        data.source = Shared(data.source, settings["source"])
