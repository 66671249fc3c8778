"""Samples and labels in an npz: `train_images`, `train_labels` and so on, as MedMNIST has them, or one set to split."""

import hashlib
import lzma
import math
import os
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graft.data.domain import Domain
from graft.data.samples import Raw, Samples
from graft.errors import GraftError
from graft.files import user_path

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Found:
    """What a subclass makes of an array: samples by index, a hash of each, and by index what is wrong with one."""

    samples: Any
    hashes: list[bytes]
    bad: dict[int, str]


class ArrayFile(Domain):
    """A domain in an npz; what its samples are, a subclass says. The noun is also the key that names their arrays."""

    def __init__(
        self,
        file: str,
        samples: str,
        labels: str = "labels",
        class_names: Sequence[str | int] | None = None,
        **settings: Any,
    ) -> None:
        """`samples` and `labels` are names of arrays, with `train_`, `val_` and `test_` before them or without."""
        super().__init__(**settings)
        self.file = user_path(file)
        self.samples = samples
        self.labels = labels
        self.class_names = None if class_names is None else tuple(str(name) for name in class_names)

    def samples_of(self, arrays: "Arrays", prefix: str) -> Found:
        """The samples of a split, in the form that their modality is kept in; GraftError for an array that is none."""
        raise NotImplementedError

    @property
    def title(self) -> str:
        """The file's name."""
        return self.file.stem

    @property
    def advice(self) -> str:
        """The key of the labels' array."""
        return f"Name another array: {self.key}.labels=<name>"

    def origin(self, split: str) -> str:
        """The file."""
        return f"{self.key}.file={self.file}" + (f", {split}" if split != "train" else "")

    def read(self) -> Raw:
        """The samples of every split that has arrays; other arrays of one value a sample may name groups and times."""
        found: dict[str, Found] = {}
        labels: dict[str, np.ndarray] = {}
        columns: dict[str, dict[str, list[Any]]] = {}
        with Arrays(self.file, f"{self.key}.file", self.noun) as arrays:
            prefixes = self._prefixes(arrays)
            for name, prefix in prefixes.items():
                found[name] = self.samples_of(arrays, prefix)
                labels[name] = self._labels(arrays, prefix, len(found[name].hashes))
                columns[name] = self._columns(arrays, prefix, len(found[name].hashes))
        if not len(labels["train"]):
            raise GraftError(f"{self.origin('train')}: the arrays are empty. Give some {self.noun} for each class.")
        classes = self._classes(labels["train"])
        splits = {}
        for name, prefix in prefixes.items():
            splits[name] = Samples(
                inputs=found[name].samples,
                labels=self._words(labels[name], classes),
                places=[f"{self.file}: {prefix}{self.samples}[{index}]" for index in range(len(labels[name]))],
                contents=found[name].hashes,
                problems=found[name].bad,
                columns=columns[name],
            )
        return Raw(splits, classes)

    def _classes(self, labels: np.ndarray) -> tuple[str, ...] | None:
        """Names of the classes, or of the columns of several labels; numbers where they have none."""
        if self.label_kind == "numbers":
            return None
        if self.label_kind == "multilabel":
            number = labels.shape[1]
            if self.class_names and len(self.class_names) != number:
                raise GraftError(
                    f"{self.key}.class_names names {len(self.class_names)} labels, but {self.labels} has {number} "
                    "columns. Give a name for each, in their order."
                )
            return self.class_names or tuple(map(str, range(number)))
        # As many names as the largest label, if there can be one of each.
        return self.class_names or tuple(map(str, range(min(int(labels.max()), len(labels)) + 1)))

    def _words(self, labels: np.ndarray, classes: tuple[str, ...] | None) -> Any:
        """Labels as Samples hold them."""
        if self.label_kind == "numbers":
            return labels.tolist()
        if self.label_kind == "multilabel":
            return torch.from_numpy(labels.astype(np.float32))
        assert classes is not None
        return [classes[label] if 0 <= label < len(classes) else str(label) for label in labels.tolist()]

    def _prefixes(self, arrays: "Arrays") -> dict[str, str]:
        """What stands before the names of each split's arrays; `train` alone where they have no splits."""
        official = {name: f"{name}_" for name in SPLITS if f"{name}_{self.samples}" in arrays.names}
        if "train" in official:
            return official
        if self.samples in arrays.names:
            return {"train": ""}
        raise GraftError(
            f"{self.key}.file={self.file}: there is no array train_{self.samples} or {self.samples}. It has "
            f"{', '.join(arrays.names) or 'none'}. Name the one with the {self.noun}: {self.key}.{self.noun}=<name "
            "without train_>"
        )

    def _columns(self, arrays: "Arrays", prefix: str, samples: int) -> dict[str, list[Any]]:
        """The arrays that a split by group or time names."""
        columns = {}
        for key in ("group", "time"):
            if (name := self.split.get(key)) is None:
                continue
            values = arrays[prefix + name] if prefix + name in arrays.names else None
            if values is not None and values.shape == (samples,):
                columns[name] = values.tolist()
            elif prefix in ("", "train_"):
                what = "there is no such array" if values is None else f"{prefix + name} has the shape {values.shape}"
                raise GraftError(
                    f"{self.key}.split.{key}={name}: {what}, where one value for each of {samples:,} {self.noun} is "
                    f"needed. Arrays of {self.file}: {', '.join(arrays.names)}."
                )
        return columns

    def _labels(self, arrays: "Arrays", prefix: str, samples: int) -> np.ndarray:
        """Labels of a split: whole numbers `(N,)`, numbers `(N,)`, or 0 and 1 `(N, K)`; GraftError for others."""
        name = prefix + self.labels
        where = f"{self.key}.file={self.file}: {name}"
        if name not in arrays.names:
            raise GraftError(
                f"{self.key}.file={self.file}: there is no array {name}. It has {', '.join(arrays.names)}. "
                f"Name the one with the labels: {self.key}.labels=<name{' without ' + prefix if prefix else ''}>"
            )
        labels = arrays[name]
        several = self.label_kind == "multilabel"
        if labels.ndim == 2 and labels.shape[1] == 1 and not several:
            labels = labels[:, 0]
        if labels.ndim != 1 + several or labels.dtype.kind not in "uifb":
            expected = {
                "classes": "labels are whole numbers from 0, of the shape (N,) or (N, 1)",
                "numbers": "labels are numbers of the shape (N,) or (N, 1)",
                "multilabel": "several labels are 0 or 1, of the shape (N, K)",
            }[self.label_kind]
            more = (
                f", or say that samples have several: {self.key}.label_kind=multilabel task=multilabel"
                if labels.ndim == 2
                else ""
            )
            raise GraftError(
                f"{where} has the shape {labels.shape} and the type {labels.dtype}; {expected}. "
                f"Name another array: {self.key}.labels=<name>{'' if several else more}"
            )
        if len(labels) != samples:
            raise GraftError(
                f"{where} has {len(labels):,} labels, but {prefix + self.samples} {samples:,} {self.noun}. "
                f"Each needs one label; name other arrays: {self.key}.{self.noun}=<name> {self.key}.labels=<name>"
            )
        if self.label_kind == "numbers":
            return labels
        allowed = np.isin(labels, (0, 1)) if several else np.isfinite(labels) & (labels == np.floor(labels))
        if not allowed.all():
            index = tuple(np.argwhere(~allowed)[0].tolist())
            what = "several labels are 0 or 1" if several else "labels are whole numbers from 0, one for each class"
            numbers = "" if several else f", or read them as numbers: {self.key}.label_kind=numbers task=regression"
            raise GraftError(
                f"{where}[{', '.join(map(str, index))}] is {labels[index]}; {what}. "
                f"Correct the file, or name another array: {self.key}.labels=<name>{numbers}"
            )
        return labels.astype(np.int64)


class Arrays:
    """The arrays of an npz, read when they are asked for; nothing that holds Python objects is read."""

    def __init__(self, file: Path, key: str, noun: str) -> None:
        """`noun` is what the samples' arrays are usually called."""
        if not file.is_file():
            what = "that is a folder" if file.is_dir() else "no such file"
            raise GraftError(f"{key}={file}: {what}. Give an npz file: {key}=/path/to/arrays.npz")
        self.file, self.key, self.noun = file, key, noun

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
                f"numpy.savez('arrays.npz', {self.noun}=..., labels=...)"
            )
        self.names = tuple(self._content.files)
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def __getitem__(self, name: str) -> np.ndarray:
        try:
            self._check_size(name)
            return self._content[name]
        except (OSError, ValueError, EOFError, KeyError, MemoryError, OverflowError, NotImplementedError) as error:
            raise self._unreadable(error, f": array {name}") from None
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, SyntaxError, RuntimeError) as error:
            raise self._unreadable(error, f": array {name}") from None

    def _check_size(self, name: str) -> None:
        """Raise ValueError for an array whose header promises more than the file or the machine's memory holds."""
        archive = self._content.zip
        member = name if name in archive.namelist() else f"{name}.npy"
        with archive.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, kind = read(stream)
        if kind.hasobject:
            raise ValueError("it needs pickle")
        promised = math.prod(shape) * kind.itemsize
        if promised > archive.getinfo(member).file_size:
            raise ValueError(f"its header promises {promised:,} bytes in the shape {shape}, which are not there")
        if promised > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
            raise ValueError(f"its {promised:,} bytes, of the shape {shape}, are more than this machine's memory")

    def _unreadable(self, error: Exception, array: str = "") -> GraftError:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        if "pickle" in reason:
            reason = "it is no npz file, or an array holds Python objects, which are not read"
        return GraftError(
            f"{self.key}={self.file}{array} cannot be read ({reason}). Write it with numpy.savez or savez_compressed."
        )


def hashes_of(samples: np.ndarray) -> list[bytes]:
    """SHA-256 of each sample `(N, ...)`."""
    return [hashlib.sha256(np.ascontiguousarray(sample).data).digest() for sample in samples]
