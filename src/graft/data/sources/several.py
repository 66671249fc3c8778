"""Several domains as one side of a transfer, such as photos, cartoons and sketches of the same things."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from graft.data.domain import Domain
from graft.data.domain_names import PLACEHOLDER, names_there, wrong_sources
from graft.data.folds import Fold
from graft.data.join import joined
from graft.data.samples import DomainData
from graft.errors import GraftError


class SeveralDomains(Domain):
    """Domains that are read alike, from paths in which `{domain}` stands for the name of one.

    Each is read and split by itself, so that its splits do not depend on which others are there.
    """

    def __init__(
        self,
        domain: Domain,
        names: Sequence[str] | None = None,
        without: str | None = None,
        sampling: Literal["size", "equal"] = "size",
    ) -> None:
        """`names` null: all that are there, but `without`, which is the other side's."""
        super().__init__()
        self.domain = domain
        self.modality, self.noun, self.unit = domain.modality, domain.noun, domain.unit
        self.names = names
        self.without = without
        self.sampling = sampling

    def load(self, split_seed: int, fold: Fold | None = None) -> DomainData:
        """Read and split every domain, and join them; GraftError for a fold, which only one target has."""
        if fold is not None:
            raise GraftError(f"{self.key}: folds are of one domain; evaluation= goes with a target that is one")
        domains = {name: self.named_domain(name) for name in self.chosen()}
        data = {name: domain.load(split_seed) for name, domain in domains.items()}
        return joined(data, self.key, equal=self.sampling == "equal")

    def chosen(self) -> list[str]:
        """The names; GraftError for one that is not there."""
        key = f"{self.key}.names"
        path = next(paths(vars(self.domain)), None)
        if path is None:
            raise GraftError(
                f"{self.key}.domain: none of its keys holds {PLACEHOLDER}, which stands for the name of a domain, such "
                f"as in {self.key}.domain.root=pacs/{PLACEHOLDER}"
            )
        there = names_there(path)
        if problem := next(wrong_sources(self.names, self.without), None):
            raise GraftError(f"{key}: {problem}.")
        names = list(self.names or [name for name in there or () if name != self.without])
        if there is not None and (unknown := [name for name in names if name not in there]):
            raise GraftError(f"{key}: there is no {unknown[0]!r} at {path}. There are {', '.join(there) or 'none'}.")
        if not names:
            raise GraftError(f"{key}: there is no domain at {path}. Name a folder or files that are there.")
        return names

    def named_domain(self, name: str) -> Domain:
        """The one domain of a name."""
        one = copy.copy(self.domain)
        vars(one).update({key: filled(value, name) for key, value in vars(one).items()})
        one.key, one.cache, one.kept_classes = f"{self.key}.domain", self.cache, self.kept_classes
        return one


def paths(value: Any) -> Iterator[str]:
    """A value, or those of a mapping, that have the placeholder in them."""
    if isinstance(value, Mapping):
        for one in value.values():
            yield from paths(one)
    elif isinstance(value, str | Path) and PLACEHOLDER in str(value):
        yield str(value)


def filled(value: Any, name: str) -> Any:
    """A value, or a mapping of such, with a name in the placeholder's place."""
    if isinstance(value, Mapping):
        return {key: filled(one, name) for key, one in value.items()}
    return type(value)(str(value).replace(PLACEHOLDER, name)) if isinstance(value, str | Path) else value
