"""Any torchvision classification data set by class name, with its official splits."""

import difflib
import functools
import hashlib
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import datasets

from graft.config.types import FractionBelowOne
from graft.data.domain import Domain, DomainData, Split, content_groups, duplicate_notes, sha256
from graft.data.sources.image_folder import file_hash, image_tensor
from graft.data.splits import stratified_split
from graft.errors import GraftError

# Names that data sets give their splits, the first that exists counts.
SPLIT_NAMES = {
    "train": ("train", "trainval", "train-standard"),
    "val": ("val", "valid"),
    "test": ("test",),
}


class TorchvisionDataset(Domain):
    """A data set of `torchvision.datasets`: the official test split stays whole, validation comes from train.

    Where only an official `val` exists (ImageNet, Imagenette) it is the test split. Where there are no splits at all
    (EuroSAT, Caltech101) the test split is cut off by seed like the validation split. `options` go to the class.
    """

    def __init__(
        self,
        name: str,
        root: str,
        download: bool = False,
        val_fraction: FractionBelowOne = 0.1,
        test_fraction: FractionBelowOne = 0.2,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.root = Path(root).expanduser()
        self.download = download
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.options = dict(options or {})

    def load(self, split_seed: int) -> DomainData:
        """Read the official splits and cut off what is missing; raises GraftError where files are missing."""
        official = self._official
        splits = {
            name: Split(images_of(dataset), self._labels[name], f"{self.name}/{self.fingerprint}/{name}")
            for name, dataset in official.items()
        }
        whole, labels = splits["train"], self._labels["train"]
        groups = content_groups(self._hashes["train"])
        sizes = {"test": self.test_fraction, "val": self.val_fraction}
        sizes = {name: size for name, size in sizes.items() if name not in splits}
        if sizes:
            cut = stratified_split(labels, sizes, split_seed, groups)
            splits |= {name: whole.subset(index) for name, index in cut.items()}
        return DomainData(
            name=self.name,
            train=splits["train"],
            val=splits["val"],
            test=splits["test"],
            classes=class_names(official["train"], int(labels.max()) + 1),
            channels=whole.inputs.shape[1] if isinstance(whole.inputs, Tensor) else 3,
            fingerprint=self.fingerprint,
            notes=duplicate_notes(groups, labels, "images"),
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of images and labels of every split; files count as they are on disk."""
        labels = [labels.numpy().tobytes() for labels in self._labels.values()]
        return sha256([*labels, *(sha256(hashes).encode() for hashes in self._hashes.values())])

    @functools.cached_property
    def _hashes(self) -> dict[str, list[bytes]]:
        """A hash of every image of every split, to find copies and changes."""
        return {name: image_hashes(dataset) for name, dataset in self._official.items()}

    @functools.cached_property
    def _labels(self) -> dict[str, Tensor]:
        """Classes int64 `(N,)` of every split."""
        try:
            return {name: torch.tensor(labels_of(dataset)) for name, dataset in self._official.items()}
        except (TypeError, ValueError) as error:
            raise GraftError(f"{self.key}.name={self.name} does not give each image one class: {error}.") from error

    @functools.cached_property
    def _official(self) -> dict[str, Dataset]:
        """The official splits as torchvision gives them; `train` alone where there are none."""
        parameters = inspect.signature(self._class).parameters
        if "train" in parameters:
            return {"train": self._open(train=True), "test": self._open(train=False)}
        if "split" not in parameters:
            return {"train": self._open()}
        found = {}
        for split, names in SPLIT_NAMES.items():
            opened = (self._open_split(name) for name in names)
            if dataset := next((dataset for dataset in opened if dataset is not None), None):
                found[split] = dataset
        if "test" not in found and "val" in found:
            found["test"] = found.pop("val")
        return found

    @property
    def _class(self) -> type[Dataset]:
        """The class that `name` names."""
        names = {name.lower(): name for name in datasets.__all__}
        if self.name not in names.values():
            close = difflib.get_close_matches(self.name.lower(), names, n=3, cutoff=0)
            raise GraftError(
                f"{self.key}.name={self.name!r} is no class of torchvision.datasets. "
                f"Closest: {', '.join(names[name] for name in close)}."
            )
        return getattr(datasets, self.name)

    def _open_split(self, split: str) -> Dataset | None:
        """The split that the data set calls `split`; None where it has none, or keeps its labels secret."""
        try:
            dataset = self._open(split=split)
        except ValueError as error:
            if "Unknown value" in str(error):
                return None
            raise
        return None if None in labels_of(dataset) else dataset

    def _open(self, **selection: Any) -> Dataset:
        """One split. Raises GraftError that names the folder where files are expected, when they are not there."""
        fetches = "download" in inspect.signature(self._class).parameters
        options = {"download": self.download} if fetches else {}
        dataset = self._class.__new__(self._class)
        try:
            dataset.__init__(str(self.root), **selection, **options, **self.options)
        except (RuntimeError, OSError) as error:
            # A class sets its folder before it looks into it, so the unfinished object knows it.
            folder = getattr(dataset, "raw_folder", None) or getattr(dataset, "_base_folder", None)
            folder = folder or self.root / getattr(dataset, "base_folder", "")
            advice = "Put them there" + (
                f", or set {self.key}.download=true to fetch them." if fetches else " by hand."
            )
            if self.download and fetches:
                advice = "They could not be fetched; put them there by hand."
            raise GraftError(
                f"{self.key}.name={self.name}: torchvision expects its files in {folder}. {advice} "
                f"It says: {str(error).split('. ')[0]}."
            ) from error
        return dataset


class DecodedImages(Sequence):
    """Images that torchvision decodes when asked for."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor:
        try:
            return image_tensor(self.dataset[index][0])
        except (OSError, SyntaxError) as error:
            raise GraftError(
                f"Image {index} of torchvision's {type(self.dataset).__name__} cannot be read: {error}. "
                "Replace its file."
            ) from error


def images_of(dataset: Dataset) -> Tensor | DecodedImages:
    """All images as one uint8 tensor `(N, C, H, W)` where the data set holds them so, else decoded one by one."""
    data = getattr(dataset, "data", None)
    if isinstance(data, np.ndarray | Tensor) and data.dtype in (np.uint8, torch.uint8):
        data = torch.as_tensor(data)
        first = dataset[0][0]
        expected = image_tensor(first, channels=1 if first.mode == "L" else 3)
        layouts = [data.unsqueeze(1)] if data.ndim == 3 else [data, data.permute(0, 3, 1, 2)]
        for images in layouts:
            if torch.equal(images[0], expected):
                return images.contiguous()
    return DecodedImages(dataset)


def labels_of(dataset: Dataset) -> list[int]:
    """The class of every image, without decoding it where the data set keeps a list of classes."""
    for name in ("targets", "labels", "_labels", "y"):
        labels = getattr(dataset, name, None)
        if labels is not None and np.ndim(labels) == 1 and len(labels) == len(dataset):
            return labels.tolist() if hasattr(labels, "tolist") else list(labels)
    return [label for _, label in getattr(dataset, "_samples", dataset)]


def files_of(dataset: Dataset) -> list[Path]:
    """The file of every image; empty where the data set does not keep a list of files."""
    for name in ("_image_files", "_images", "_samples", "samples", "imgs"):
        entries = getattr(dataset, name, [])
        files = [entry[0] if isinstance(entry, tuple) else entry for entry in entries]
        if files and len(files) == len(dataset) and all(isinstance(file, str | Path) for file in files):
            return [Path(file) for file in files]
    return []


def image_hashes(dataset: Dataset) -> list[bytes]:
    """SHA-256 of every image: of its file, or of its pixels where the data set does not tell the file."""
    if files := files_of(dataset):
        return [file_hash(file) for file in files]
    images = images_of(dataset)
    rows = images.numpy() if isinstance(images, Tensor) else (image.numpy() for image in images)
    return [hashlib.sha256(row.tobytes()).digest() for row in rows]


def class_names(dataset: Dataset, number: int) -> tuple[str, ...]:
    """Names of the classes; their numbers where the data set has no names, "3" for MNIST's "3 - three"."""
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None) or range(number)
    names = [name[0] if isinstance(name, tuple) else str(name) for name in names]
    digits = [re.fullmatch(r"(\d) - \w+", name) for name in names]
    return tuple(match[1] for match in digits) if all(digits) else tuple(names)
