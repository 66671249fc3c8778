"""What a source reads, and what becomes of it: named splits of samples and labels."""

import array
import bisect
import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from graft.data.boxes import Boxes
from graft.data.target_texts import TargetTexts
from graft.errors import GraftError

if TYPE_CHECKING:
    from graft.data.stream import Stream

HELD_OUT = ("val", "test")
SIZE_OF_DIGEST = 32  # bytes of SHA-256
HASHED_TOGETHER = 2**12  # hashes of samples that are put in a row

Modality = Literal["image", "text", "audio", "table", "sequence", "multimodal"]

LabelKind = Literal["classes", "numbers", "multilabel", "boxes", "texts"]

# What becomes of samples that cannot be used: a refusal, or left out and counted.
OnBadSample = Literal["error", "skip"]


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


class Places(Sequence):
    """What messages call the rows `(N,)` of a file; of a million nearly none is ever asked for."""

    def __init__(self, before: str, lines: np.ndarray) -> None:
        self.before = before
        self.lines = lines

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: Any) -> Any:
        found = self.lines[index]
        return Places(self.before, found) if isinstance(found, np.ndarray) else f"{self.before}{found}"


class Digests(Sequence):
    """SHA-256 hashes of what samples hold, or of some of them; a million take a third of what they take as objects."""

    def __init__(self, values: np.ndarray, places: np.ndarray | None = None) -> None:
        """`values` are uint8 `(N, 32)`, `places` `(M,)` which of them count; None: all."""
        self.values = values
        self.places = places

    def __len__(self) -> int:
        return len(self.values if self.places is None else self.places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, np.ndarray):
            return Digests(self.values, index if self.places is None else self.places[index])
        return self.values[index if self.places is None else self.places[index]].tobytes()

    def some(self, begin: int, end: int) -> np.ndarray:
        """Those at places from `begin` to `end` as whole numbers `(end - begin, 4)`, to compare many at once."""
        values = self.values[slice(begin, end) if self.places is None else self.places[begin:end]]
        return values.view(np.uint64)

    def blocks(self) -> Iterator[np.ndarray]:
        """The same of all, some at a time."""
        return (self.some(start, start + HASHED_TOGETHER) for start in range(0, len(self), HASHED_TOGETHER))

    def as_parts(self) -> Iterator[bytes]:
        """Each hash behind its length, as `sha256` takes parts, many at once."""
        for words in self.blocks():
            length = np.full((len(words), 1), SIZE_OF_DIGEST, dtype="<u8")
            yield np.concatenate([length.view(np.uint8), words.view(np.uint8)], axis=1).tobytes()


SampleInputs = Tensor | LazyTensor | Sequence[Tensor] | Sequence[str] | Subset | ConcatDataset


@dataclass(frozen=True)
class Split:
    """Samples and labels of one part of a domain.

    `inputs` is a uint8 tensor `(N, C, H, W)`, or gives a uint8 `(C, H, W)` by index; of another modality, what
    its transform takes. `labels` are int64 `(N,)` classes, float `(N, K)` for multilabel, float `(N,)`
    numbers, Boxes or TargetTexts; None where the domain counts as unlabelled; fewer than samples
    where only the first ones have labels.
    `fingerprint` is a hash of what decides the inputs, so that
    what is computed from them can be kept under it.
    """

    inputs: SampleInputs
    labels: Any
    fingerprint: str
    places: Sequence[str] | None = None  # what messages and predictions call each sample; None: its number
    sources: Tensor | None = None  # (N,) number of the source that each sample is of, where the domain has several
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # other values of each sample, such as a speaker
    groups: Tensor | None = None  # (N,) number of the group of split.group, such as a patient, that each sample is of
    contents: Sequence[Hashable] | None = None  # equal where two samples are the same; None: no two are known to be

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def partly_labelled(self) -> bool:
        """Whether only the first samples have labels."""
        return self.labels is not None and len(self.labels) < len(self)

    @property
    def labelled(self) -> "Split":
        """The samples that have labels; of an unlabelled split all."""
        return self.subset(torch.arange(len(self.labels))) if self.labels is not None and self.partly_labelled else self

    def subset(self, indices: Tensor) -> "Split":
        """The samples at `indices` `(M,)`; images on disk stay there."""
        labels = None if self.labels is None else self.labels[indices]
        places = None if self.places is None else values_at(self.places, indices)
        columns = {name: values_at(values, indices) for name, values in self.columns.items()}
        fingerprint = sha256([self.fingerprint.encode(), indices.numpy().tobytes()])
        sources = None if self.sources is None else self.sources[indices]
        groups = None if self.groups is None else self.groups[indices]
        contents = None if self.contents is None else values_at(self.contents, indices)
        return Split(take(self.inputs, indices), labels, fingerprint, places, sources, columns, groups, contents)


@dataclass(frozen=True)
class Samples:
    """One split as a source reads it: N samples, usable or not; lists and arrays are `(N,)`.

    `labels` are words (None where one is missing) for classes, anything that reads as a number for numbers; for
    multilabel 0 and 1 `(N, K)`, or words that the domain's `label_separator` separates, or sequences of words.
    """

    inputs: Any  # samples by index, as the modality's transform takes them
    labels: Any
    places: Sequence[str]  # what messages call each sample: its file, or "reviews.csv, row 7"
    contents: Sequence[Hashable] | None  # equal where two samples are the same; None: no two are
    problems: Mapping[int, str] = field(default_factory=dict)  # by index, why a sample cannot be used
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # for split.group, split.time and slices
    unread: Sequence[tuple[str, str]] = ()  # place and problem of what could not even be read as a sample
    left_out: Mapping[str, int] = field(default_factory=dict)  # reason -> number of files that are no samples at all
    fitted: str = ""  # what was learned from train to encode the inputs, for their fingerprint

    def __len__(self) -> int:
        return len(self.places)

    def take(self, indices: Tensor) -> "Samples":
        """The samples at `indices` `(M,)`."""
        place = {index: number for number, index in enumerate(indices.tolist())} if self.problems else {}
        return replace(
            self,
            inputs=take(self.inputs, indices),
            labels=self.labels[indices]
            if isinstance(self.labels, Tensor | Boxes | TargetTexts)
            else values_at(self.labels, indices),
            places=values_at(self.places, indices),
            contents=None if self.contents is None else values_at(self.contents, indices),
            problems={place[i]: problem for i, problem in self.problems.items() if i in place},
            columns={name: values_at(values, indices) for name, values in self.columns.items()},
        )


@dataclass(frozen=True)
class Raw:
    """What a source reads: `train`, and `val` and `test` where they are official."""

    splits: Mapping[str, Samples]
    classes: tuple[str, ...] | None = None  # in their order; None = those of train's labels
    notes: tuple[str, ...] = ()
    fingerprint: str = ""  # of what decides the inputs beside the samples' contents


@dataclass(frozen=True)
class Report:
    """What became of everything that was found, for the printout and results.json."""

    found: int
    used: Mapping[str, int]  # by split
    left_out: Mapping[str, int]  # reason -> number
    skipped: tuple[Mapping[str, str], ...]  # split, sample and reason of each sample that cannot be used
    split: str  # how what is not official was split off
    unit: str = "samples"  # what several of what was found are called

    def sentence(self, noun: str = "") -> str:
        """All of it in one line; `noun` in the place of the unit."""
        used = ", ".join(f"{number:,} {name}" for name, number in self.used.items())
        reasons = dict(self.left_out)
        if self.skipped:
            reasons["skipped"] = len(self.skipped)
        left = ", ".join(f"{number:,} {reason}" for reason, number in reasons.items())
        without = f"; {sum(reasons.values()):,} left out ({left})" if left else ""
        found = f"{self.found:,} {noun or self.unit} found"
        return f"{found}, {sum(self.used.values()):,} used ({used}; {self.split}){without}"


def take(inputs: Any, indices: Tensor) -> Any:
    """The inputs at `indices` `(M,)`; what decodes one by one stays as it is, behind a view."""
    if isinstance(inputs, LazyTensor):
        return LazyTensor(len(indices), lambda: inputs.tensor[indices])
    if isinstance(inputs, Tensor):
        return inputs[indices]
    return Subset(inputs, array.array("q", indices.numpy().tobytes()))  # a list of a million takes five times as much


def values_at(values: Sequence[Any], indices: Tensor) -> Any:
    """The values at `indices` `(M,)`; those that are kept in one array stay in one."""
    if isinstance(values, Places | Digests):
        return values[indices.numpy()]
    return [values[index] for index in indices.tolist()]


def located(inputs: Any, index: int) -> tuple[Any, int]:
    """Where a sample of subsets and of several sources comes from: inputs that are neither, and its index in them."""
    while isinstance(inputs, Subset | ConcatDataset):
        if isinstance(inputs, Subset):
            inputs, index = inputs.dataset, inputs.indices[index]
        else:
            number = bisect.bisect_right(inputs.cumulative_sizes, index)
            index -= inputs.cumulative_sizes[number - 1] if number else 0
            inputs = inputs.datasets[number]
    return inputs, index


def rows_of(split: "Split | Samples") -> Any:
    """A split's samples, whatever part of a part it is, of inputs that take indices `(M,)`: tables and sequences."""
    inputs, indices = part_of(split)
    return inputs if indices is None else inputs[indices]


def part_of(split: "Split | Samples") -> tuple[Any, Tensor | None]:
    """The inputs of which a split is a part, and its indices in them `(M,)`; None where it is all of them."""
    inputs: Any = split.inputs
    indices = None
    while isinstance(inputs, Subset):
        own = torch.tensor(np.asarray(inputs.indices, dtype=np.int64))
        inputs, indices = inputs.dataset, own if indices is None else own[indices]
    return inputs, indices


def names_of(split: Split, indices: Tensor) -> list[str]:
    """What messages call the samples at `indices` `(M,)`."""
    places = split.places
    return [f"sample {index}" if places is None else places[index] for index in indices.tolist()]


@dataclass(frozen=True)
class DomainData:
    """A domain, split. `fingerprint` changes whenever the content does; `notes` say what a reader should know."""

    name: str
    train: "Split | Stream"  # a stream where they do not fit, see graft.data.stream
    val: Split
    test: Split
    classes: tuple[str, ...] | None
    channels: int | None  # of images
    fingerprint: str
    notes: tuple[str, ...] = ()
    modality: Modality = "image"  # of a sample
    # what a backbone that is made for these data has to know
    backbone_arguments: Mapping[str, Any] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)  # how a new sample is read, for graft.model.inputs
    report: Report | None = None  # None for data that are made, not found
    sources: tuple[str, ...] = ()  # names of the sources that make up the domain, where there are several
    equal_sources: bool = False  # whether training draws each of them equally often
    # Its own classes, where `classes` hold those of others too, see graft.data.label_sets
    label_set: tuple[str, ...] | None = None


def sha256(parts: Iterable[bytes | Digests]) -> str:
    """Hash of a sequence of byte strings; lengths are hashed too, so that moving a boundary changes it.

    Hashes of samples are a part each.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Digests):
            for several in part.as_parts():
                digest.update(several)
        else:
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()


def seed_of(*parts: object) -> int:
    """A seed that depends on every part, and for nothing else: `seed_of(seed, "target", epoch)`."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "little")


def generator(*parts: object) -> torch.Generator:
    """A random generator seeded by `seed_of(*parts)`."""
    return torch.Generator().manual_seed(seed_of(*parts))


def group_numbers(contents: Iterable[Hashable]) -> Tensor:
    """Group number `(N,)` of each sample, in the order in which groups first occur; equal ones share one."""
    if isinstance(contents, Digests) and (first := first_alike(contents)) is not None:
        is_first = first == np.arange(len(first))
        return torch.from_numpy(is_first.cumsum()[first] - 1)
    seen: dict[Hashable, int] = {}
    return torch.tensor([seen.setdefault(content, len(seen)) for content in contents], dtype=torch.int64)


def first_alike(digests: Digests) -> np.ndarray | None:
    """By each of the hashes the place of the first one that is equal; None where a part of them does not tell."""
    words = digests.some(0, len(digests))
    _, first, inverse = np.unique(words[:, 0], return_index=True, return_inverse=True)
    first = first[inverse.ravel()]
    later = (first != np.arange(len(first))).nonzero()[0]
    return first if (words[later] == words[first[later]]).all() else None


def number_in(contents: Sequence[Hashable], others: Sequence[Hashable]) -> int:
    """How many samples are among others, by what they hold."""
    if len(contents) and isinstance(contents, Digests) and isinstance(others, Digests):
        others = possible(contents, others)
    known = set(others)
    return sum(one in known for one in contents)


def possible(digests: Digests, others: Digests) -> list[bytes]:
    """Those of the others whose first part occurs among the hashes: nearly none has to be compared as a whole."""
    known = np.unique(digests.some(0, len(digests))[:, 0])
    beginnings = np.zeros(2**16, dtype=bool)  # of two bytes, which fit into the processor's cache
    beginnings[known >> np.uint64(48)] = True
    found = []
    for words in others.blocks():
        words = words[beginnings[words[:, 0] >> np.uint64(48)]]
        places = np.searchsorted(known, words[:, 0]).clip(max=len(known) - 1)
        found += [one.tobytes() for one in words[known[places] == words[:, 0]]]
    return found


def check_unchanged(noun: str, augment: str, shift: str | None) -> None:
    """Raise GraftError for augmentation or a shift of samples (`noun` in the message) that are taken as they are."""
    if augment != "none":
        raise GraftError(f"data.augment={augment}: {noun} are taken as they are. Set data.augment=none.")
    if shift is not None:
        raise GraftError(f"data.test_shifts=[{shift}]: there is no such shift of {noun}. Set data.test_shifts=[].")
