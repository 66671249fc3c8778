"""What a domain is: named splits of samples and labels, whatever they come from."""

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.utils.data import Subset

from graft.errors import GraftError

SPLITS = ("train", "val", "test")
HELD_OUT = ("val", "test")

Modality = Literal["image", "text", "audio", "table", "sequence"]

OnBadSample = Literal[
    "error", "skip"
]  # what becomes of samples that cannot be used: a refusal, or left out and counted


class LazyTensor:
    """Images that are made at first use, because many runs never look at a split (the source's, once it is cached)."""

    def __init__(self, length: int, make: Callable[[], Tensor]) -> None:
        self.length = length
        self._make = make
        self._tensor: Tensor | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int | Tensor) -> Tensor:
        return self.tensor[index]

    @property
    def tensor(self) -> Tensor:
        """All images, uint8 `(N, C, H, W)`."""
        if self._tensor is None:
            self._tensor = self._make()
        return self._tensor


Inputs = Tensor | LazyTensor | Sequence[Tensor] | Sequence[str] | Subset


@dataclass(frozen=True)
class Split:
    """Samples and labels of one split of a domain.

    `inputs` is a uint8 tensor `(N, C, H, W)`, or gives a uint8 `(C, H, W)` by index; of another modality, what
    its transform takes. `labels` are int64 `(N,)` classes, float `(N, K)` for multilabel, float `(N,)`
    numbers; None where the domain counts as unlabelled. `fingerprint` is a hash of what decides the inputs, so that
    what is computed from them can be kept under it.
    """

    inputs: Inputs
    labels: Tensor | None
    fingerprint: str

    def __len__(self) -> int:
        return len(self.inputs)

    def subset(self, indices: Tensor) -> "Split":
        """The samples at `indices` `(M,)`; images on disk stay there."""
        labels = None if self.labels is None else self.labels[indices]
        fingerprint = sha256([self.fingerprint.encode(), indices.numpy().tobytes()])
        inputs = self.inputs
        if isinstance(inputs, LazyTensor):
            return Split(LazyTensor(len(indices), lambda: inputs.tensor[indices]), labels, fingerprint)
        if isinstance(inputs, Tensor):
            return Split(inputs[indices], labels, fingerprint)
        return Split(Subset(inputs, indices.tolist()), labels, fingerprint)


def rows_of(split: Split) -> Any:
    """A split's samples, however often it was subset, of inputs that take indices `(M,)`: tables and sequences."""
    inputs, indices = split.inputs, None
    while isinstance(inputs, Subset):
        own = torch.tensor(inputs.indices, dtype=torch.int64)
        inputs, indices = inputs.dataset, own if indices is None else own[indices]
    return inputs if indices is None else inputs[indices]


def names_of(split: Split, indices: Tensor) -> list[str]:
    """What messages call the samples at `indices` `(M,)`: their files where they have any, else their numbers."""
    inputs, of_inputs = split.inputs, indices.tolist()
    while isinstance(inputs, Subset):
        inputs, of_inputs = inputs.dataset, [inputs.indices[index] for index in of_inputs]
    files = getattr(inputs, "files", None)
    return [f"sample {index}" for index in indices.tolist()] if files is None else [str(files[i]) for i in of_inputs]


class Baseline(Protocol):
    """What anybody would try first on data of a modality; its score stands beside the network's."""

    name: str

    def predictions(self, train: Split, val: Split, test: Split, classes: int | None, seed: int) -> Tensor:
        """Probabilities `(N, K)` of the test split's classes, or numbers `(N,)`, after learning from train and val."""


@dataclass(frozen=True)
class DomainData:
    """A domain, split. `fingerprint` changes whenever the content does; `notes` say what a reader should know."""

    name: str
    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...] | None
    channels: int | None  # of images
    fingerprint: str
    notes: tuple[str, ...] = ()
    modality: Modality = "image"  # of a sample
    # what a backbone that is made for these data has to know
    backbone_arguments: Mapping[str, Any] = field(default_factory=dict)
    baseline: Baseline | None = None  # tested on the same splits


class Domain:
    """Where a domain's data come from. Making one is cheap; `load` reads labels and finds files."""

    key = "data.target"  # where the config holds it; the data module sets it, and error messages name it

    def load(self, split_seed: int) -> DomainData:
        """Read the domain and split it; raises GraftError when the data are missing or cannot be used."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """Hash of the content, without decoding it."""
        raise NotImplementedError


def sha256(parts: Iterable[bytes]) -> str:
    """Hash of a sequence of byte strings; lengths are hashed too, so that moving a boundary changes it."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def seed_of(*parts: object) -> int:
    """A seed that depends on every part, and for nothing else: `seed_of(seed, "target", epoch)`."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "little")


def generator(*parts: object) -> torch.Generator:
    """A random generator seeded by `seed_of(*parts)`."""
    return torch.Generator().manual_seed(seed_of(*parts))


def content_groups(contents: Iterable[bytes | memoryview]) -> Tensor:
    """Group number `(N,)` of each sample; samples with the same bytes share one."""
    return group_numbers(hashlib.sha256(content).digest() for content in contents)


def group_numbers(contents: Iterable[Hashable]) -> Tensor:
    """Group number `(N,)` of each sample; equal ones share one."""
    seen: dict[Hashable, int] = {}
    return torch.tensor([seen.setdefault(content, len(seen)) for content in contents], dtype=torch.int64)


def duplicate_notes(groups: Tensor, labels: Tensor, noun: str) -> tuple[str, ...]:
    """One line on samples that occur more than once, and whether their labels agree; empty where none does."""
    seen: dict[int, list[int]] = {}
    for group, label in zip(groups.tolist(), labels.tolist(), strict=True):
        seen.setdefault(group, []).append(label)
    copies = [members for members in seen.values() if len(members) > 1]
    if not copies:
        return ()
    conflicts = sum(len(set(members)) > 1 for members in copies)
    return (f"{len(copies):,} {noun} occur more than once, {conflicts} of them with different labels",)


def leak_notes(contents: Mapping[str, Sequence[Hashable]], noun: str) -> tuple[str, ...]:
    """Lines on samples of an official split that train's has too."""
    known = set(contents["train"])
    shared = {split: sum(content in known for content in contents[split]) for split in HELD_OUT if split in contents}
    return tuple(f"{count:,} {noun} of {split} are in train too" for split, count in shared.items() if count)


def check_unchanged(noun: str, augment: str, shift: str | None) -> None:
    """Raise GraftError for augmentation or a shift of samples (`noun` in the message) that are taken as they are."""
    if augment != "none":
        raise GraftError(f"data.augment={augment}: {noun} are taken as they are. Set data.augment=none.")
    if shift is not None:
        raise GraftError(f"data.test_shifts=[{shift}]: there is no such shift of {noun}. Set data.test_shifts=[].")
