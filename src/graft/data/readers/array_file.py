"""Samples and labels in an npz: `train_images`, `train_labels` and so on, as MedMNIST has them, or one set to split."""

import functools
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graft.config.types import FractionBelowOne
from graft.data.domain import (
    SPLITS,
    Domain,
    DomainData,
    OnBadSample,
    Split,
    duplicate_notes,
    group_numbers,
    leak_notes,
    sha256,
)
from graft.data.splits import split_off
from graft.errors import GraftError

SHOWN = 3  # bad samples that a message names, and classes


@dataclass(frozen=True)
class RawSplit:
    """Samples `(N, ...)` of one split, their labels int64 `(N,)`, and a hash `(N,)` of each sample's content."""

    samples: Any
    labels: Tensor
    hashes: list[bytes]


@dataclass(frozen=True)
class Found:
    """What a subclass makes of an array: samples by index, a hash of each, and by index what is wrong with one."""

    samples: Any
    hashes: list[bytes]
    bad: dict[int, str]


class ArrayFile(Domain):
    """A domain in an npz; what its samples are, a subclass says."""

    word: str  # for its samples, which is also the config key that names their arrays

    def __init__(
        self,
        file: str,
        samples: str,
        labels: str = "labels",
        class_names: Sequence[str | int] | None = None,
        val_fraction: FractionBelowOne = 0.15,
        test_fraction: FractionBelowOne = 0.15,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        """`samples` and `labels` are names of arrays, with `train_`, `val_` and `test_` before them or without."""
        self.file = Path(file).expanduser()
        self.samples = samples
        self.labels = labels
        self.class_names = None if class_names is None else tuple(str(name) for name in class_names)
        self.fractions = {"test": test_fraction, "val": val_fraction}
        self.on_bad_sample = on_bad_sample

    def samples_of(self, arrays: "Arrays", prefix: str) -> Found:
        """The samples of a split, in the form that their modality is kept in; GraftError for an array that is none."""
        raise NotImplementedError

    def described(self, splits: Mapping[str, Split]) -> dict[str, Any]:
        """What DomainData has to say of samples of this modality."""
        raise NotImplementedError

    def load(self, split_seed: int) -> DomainData:
        """Read every split and split off what has no official one; copies of one sample stay on one side.

        Raises GraftError for a missing file or array, one of another form, and samples that cannot be used.
        """
        official, classes, notes = self._official
        splits = {name: Split(raw.samples, raw.labels, f"{self.fingerprint}/{name}") for name, raw in official.items()}
        labels, groups = official["train"].labels, group_numbers(official["train"].hashes)
        sizes = {name: size for name, size in self.fractions.items() if name not in official}
        if sizes:
            origin = f"{self.key}.file={self.file}"
            cut = split_off(labels, sizes, split_seed, groups, key=self.key, origin=origin, noun=self.word)
            whole = splits["train"]
            splits |= {name: whole.subset(index) for name, index in cut.items()}
        self._refuse_absent(splits["train"].labels, classes)
        return DomainData(
            **{
                "name": self.file.stem,
                "classes": classes,
                "channels": None,
                "fingerprint": self.fingerprint,
                "notes": (
                    *notes,
                    *duplicate_notes(groups, labels, self.word),
                    *leak_notes({name: raw.hashes for name, raw in official.items()}, self.word),
                ),
                **splits,
                **self.described(splits),
            }
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of samples and labels of every split, without those that cannot be used."""
        official, classes, _ = self._official
        labels = [raw.labels.numpy().tobytes() for raw in official.values()]
        return sha256([repr(classes).encode(), *labels, *(b"".join(raw.hashes) for raw in official.values())])

    @functools.cached_property
    def _official(self) -> tuple[dict[str, RawSplit], tuple[str, ...], tuple[str, ...]]:
        """Usable samples of every official split (`train` alone where there is none), classes, notes."""
        official, bad, classes = {}, {}, self.class_names
        with Arrays(self.file, f"{self.key}.file") as arrays:
            for name, prefix in self._prefixes(arrays).items():
                found = self.samples_of(arrays, prefix)
                labels = self._labels(arrays, prefix, len(found.hashes))
                if name == "train":
                    self._refuse_single_class(prefix + self.samples, labels)
                    classes = classes or numbers_up_to(labels)
                known = f"{', '.join(classes[:SHOWN])}{', ...' if len(classes) > SHOWN else ''}"
                for index in ((labels < 0) | (labels >= len(classes))).nonzero().flatten().tolist():
                    bad[prefix + self.labels, index] = (
                        f"label {int(labels[index])} is none of 0 to {len(classes) - 1}, the classes {known}"
                    )
                bad |= {(prefix + self.samples, index): problem for index, problem in found.bad.items()}
                wrong = {index for array, index in bad if array in (prefix + self.labels, prefix + self.samples)}
                official[name] = without(RawSplit(found.samples, labels, found.hashes), wrong)
                if not len(official[name].labels):
                    raise GraftError(
                        f"{self.key}.file={self.file}: none of the {self.word} in {prefix + self.samples} can be used"
                        f"{self._listed(bad)}. Give at least one."
                    )
        if bad and self.on_bad_sample == "error":
            raise GraftError(
                f"{self.key}.file={self.file}: {len(bad):,} {self.word} cannot be used{self._listed(bad)}. "
                f"Correct the file, or leave them out: {self.key}.on_bad_sample=skip"
            )
        self._refuse_absent(official["train"].labels, classes)
        return official, classes, (f"skipped: {len(bad):,} {self.word}{self._listed(bad)}",) if bad else ()

    def _listed(self, bad: Mapping[tuple[str, int], str]) -> str:
        """The first bad samples in words, in brackets; empty where there is none."""
        lines = [f"{array}[{index}]: {problem}" for (array, index), problem in list(bad.items())[:SHOWN]]
        more = f"; and {len(bad) - SHOWN:,} more" if len(bad) > SHOWN else ""
        return f" ({'; '.join(lines)}{more})" if lines else ""

    def _prefixes(self, arrays: "Arrays") -> dict[str, str]:
        """What stands before the names of each split's arrays; `train` alone where there is one set."""
        official = {split: f"{split}_" for split in SPLITS if f"{split}_{self.samples}" in arrays.names}
        if "train" in official:
            return official
        if self.samples in arrays.names:
            return {"train": ""}
        raise GraftError(
            f"{self.key}.file={self.file}: there is no array train_{self.samples} or {self.samples}. It has "
            f"{', '.join(arrays.names) or 'none'}. Name the one with the {self.word}: {self.key}.{self.word}=<name "
            "without train_>"
        )

    def _labels(self, arrays: "Arrays", prefix: str, samples: int) -> Tensor:
        """Labels int64 `(N,)` of a split; GraftError where they are no whole numbers, or of another length."""
        name = prefix + self.labels
        where = f"{self.key}.file={self.file}: {name}"
        if name not in arrays.names:
            raise GraftError(
                f"{self.key}.file={self.file}: there is no array {name}. It has {', '.join(arrays.names)}. "
                f"Name the one with the labels: {self.key}.labels=<name{' without ' + prefix if prefix else ''}>"
            )
        labels = arrays[name]
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1 or labels.dtype.kind not in "uif":
            raise GraftError(
                f"{where} has the shape {labels.shape} and the type {labels.dtype}; labels are whole numbers from 0, "
                f"of the shape (N,) or (N, 1). Name another array: {self.key}.labels=<name>"
            )
        if len(labels) != samples:
            raise GraftError(
                f"{where} has {len(labels):,} labels, but {prefix + self.samples} {samples:,} {self.word}. "
                f"Each needs one label; name other arrays: {self.key}.{self.word}=<name> {self.key}.labels=<name>"
            )
        whole = np.isfinite(labels) & (labels == np.floor(labels)) if labels.dtype.kind == "f" else labels == labels
        if not whole.all():
            index = int(np.flatnonzero(~whole)[0])
            raise GraftError(
                f"{where}[{index}] is {labels[index]}; labels are whole numbers from 0, one for each class. "
                f"Correct the file, or name another array: {self.key}.labels=<name>"
            )
        return torch.from_numpy(labels.astype(np.int64))

    def _refuse_single_class(self, array: str, labels: Tensor) -> None:
        """Raise GraftError for training samples of one class, or none at all."""
        present = set(labels.tolist())
        if not present:
            raise GraftError(f"{self.key}.file={self.file}: {array} is empty. Give some {self.word} for each class.")
        if len(present) < 2:
            raise GraftError(
                f"{self.key}.file={self.file}: every label in training is {min(present)}, but at least 2 classes are "
                f"needed. Name another array: {self.key}.labels=<name>"
            )

    def _refuse_absent(self, labels: Tensor, classes: Sequence[str]) -> None:
        """Raise GraftError for a class that training never sees."""
        present = set(labels.tolist())
        if absent := [number for number in range(len(classes)) if number not in present]:
            raise GraftError(
                f"{self.key}.file={self.file}: no label in training is {absent[0]}, which stands for "
                f"{classes[absent[0]]!r}, one of {len(classes)} classes. Labels count from 0, and "
                f"{self.key}.class_names=[...] names as many as there are."
            )


class Arrays:
    """The arrays of an npz, read when they are asked for; nothing that holds Python objects is read."""

    def __init__(self, file: Path, key: str) -> None:
        if not file.is_file():
            raise GraftError(f"{key}={file}: no such file. Give an npz file: {key}=/path/to/arrays.npz")
        self.file, self.key = file, key

    def __enter__(self) -> "Arrays":
        with ExitStack() as stack:  # numpy leaves a file that is no npz open
            try:
                stream = stack.enter_context(self.file.open("rb"))
                self._content = np.load(stream, allow_pickle=False)
            except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                raise self._unreadable(error) from None
            self._opened = stack.pop_all()
        if not isinstance(self._content, np.lib.npyio.NpzFile):
            self._opened.close()
            raise GraftError(
                f"{self.key}={self.file} holds a single array; samples and labels are needed: "
                "numpy.savez('arrays.npz', images=..., labels=...)"
            )
        self.names = tuple(self._content.files)
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def __getitem__(self, name: str) -> np.ndarray:
        try:
            return self._content[name]
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zipfile.zlib.error) as error:
            raise self._unreadable(error, f": array {name}") from None

    def _unreadable(self, error: Exception, array: str = "") -> GraftError:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        if "pickle" in reason:
            reason = "it is no npz file, or an array holds Python objects, which are not read"
        return GraftError(
            f"{self.key}={self.file}{array} cannot be read ({reason}). Write it with numpy.savez or savez_compressed."
        )


def numbers_up_to(labels: Tensor) -> tuple[str, ...]:
    """Names of classes that have none: 0, 1, ... up to the largest label, if there can be one of each."""
    return tuple(map(str, range(min(int(labels.max()), len(labels)) + 1)))


def without(raw: RawSplit, wrong: set[int]) -> RawSplit:
    """The samples that are not `wrong`."""
    if not wrong:
        return raw
    kept = torch.tensor([index for index in range(len(raw.labels)) if index not in wrong], dtype=torch.int64)
    hashes = [raw.hashes[index] for index in kept.tolist()]
    return replace(raw, samples=raw.samples[kept], labels=raw.labels[kept], hashes=hashes)


def hashes_of(samples: np.ndarray) -> list[bytes]:
    """SHA-256 of each sample `(N, ...)`."""
    return [hashlib.sha256(np.ascontiguousarray(sample)).digest() for sample in samples]
