"""Any torchvision classification data set by class name, with its official splits."""

import difflib
import gzip
import hashlib
import inspect
import os
import re
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import datasets

from graft.cache.disk import DiskCache
from graft.config.types import FractionBelowOne
from graft.data.readers.array_file import hashes_of
from graft.data.readers.folders import file_problem
from graft.data.readers.images import Look, detail, file_digests, image_tensor, is_deep
from graft.data.readers.labelled_images import SimilarImages
from graft.data.readers.looks import look_at, looks_of, looks_of_arrays
from graft.data.readers.similar import thumbnail_of
from graft.data.samples import Raw, Samples
from graft.errors import GraftError, first_line
from graft.files import user_path

# Names that data sets give their splits, the first that exists counts.
SPLITS = {
    "train": ("train", "trainval", "train-standard"),
    "val": ("val", "valid"),
    "test": ("test",),
}
CHOSEN = ("root", "train", "split", "download", "transform", "target_transform", "transforms", "loader")
NO_CLASS = ("N/A",)  # what torchvision has among the classes of EMNIST's letters, whose numbers begin with 1
PACKED = (".gz", ".tgz", ".tar", ".zip", ".bz2", ".xz")
# What the classes that cannot be used give instead of an image and its class.
OTHERS = {
    "boxes": ("CocoDetection", "VOCDetection", "WIDERFace", "Kitti"),
    "masks": ("VOCSegmentation", "Cityscapes", "SBDataset"),
    "captions": ("CocoCaptions", "SBU", "Flickr8k", "Flickr30k"),
    "videos": ("Kinetics", "HMDB51", "UCF101", "MovingMNIST"),
    "pairs of images": ("LFWPairs", "PhotoTour"),
    "the motion between two images": ("KittiFlow", "Sintel", "FlyingChairs", "FlyingThings3D", "HD1K"),
    "images without a label": ("LSUNClass", "VisionDataset"),
    "random numbers": ("FakeData",),
}


class TorchvisionDataset(SimilarImages):
    """A data set of `torchvision.datasets`: the official test split stays whole, validation comes from train.

    Where only an official `val` exists (ImageNet, Imagenette) it is the test split. Where there are no splits at all
    (EuroSAT, Caltech101) the test split is cut off by seed like the validation split. `options` go to the class.
    """

    may_lack_classes = True

    def __init__(
        self,
        name: str,
        root: str,
        download: bool = False,
        val_fraction: FractionBelowOne = 0.1,
        test_fraction: FractionBelowOne = 0.2,
        options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        """Options that are null are not given to the class."""
        super().__init__(val_fraction=val_fraction, test_fraction=test_fraction, **settings)
        self.name = name
        self.root = user_path(root)
        self.download = download
        self.options = {key: value for key, value in (options or {}).items() if value is not None}

    @property
    def title(self) -> str:
        """The class's name."""
        return self.name

    def origin(self, split: str) -> str:
        """The data set."""
        return f"{self.key}.name={self.name}" + (f", {split}" if split != "train" else "")

    def read(self) -> Raw:
        """The official splits as torchvision gives them; raises GraftError where files are missing."""
        if self.label_kind != "classes":
            raise GraftError(
                f"{self.key}.label_kind={self.label_kind}: of torchvision's data sets Graft reads classes alone. List "
                f"the images with their labels in a table, and in the place of {self.key}.name give "
                f"data/domain@{self.key}=image_file {self.key}.file=/path/to/images.csv"
            )
        splits = self._splits()
        try:
            labels = {name: labels_of(dataset) for name, dataset in splits.items()}
            classes = class_names(splits["train"], int(torch.tensor(labels["train"]).max()) + 1)
            words = {name: [classes[label] for label in labels[name]] for name in splits}
            for name, dataset in splits.items():
                if len(words[name]) != len(dataset):  # type: ignore[arg-type]  # all of torchvision's have a length
                    raise ValueError(f"{name} has {len(dataset):,} images and {len(words[name]):,} labels")  # type: ignore[arg-type]
        except (TypeError, ValueError, IndexError, RuntimeError) as error:
            raise GraftError(
                f"{self.key}.name={self.name} does not give each image one class ({first_line(error)})."
            ) from error
        empty = set(NO_CLASS) & set(classes) - {word for own in words.values() for word in own}
        looks = {name: looked_into(dataset, self.cache) for name, dataset in splits.items()}
        self.hashes = {look.digest: look.hash for found in looks.values() for look in found}
        return Raw(
            {
                name: Samples(
                    inputs=images_of(dataset),
                    labels=words[name],
                    places=[str(path) for path in files_of(dataset)]
                    or [f"image {index} of {name}" for index in range(len(looks[name]))],
                    contents=[look.digest for look in looks[name]],
                    problems={index: look.problem for index, look in enumerate(looks[name]) if look.problem},
                )
                for name, dataset in splits.items()
            },
            tuple(name for name in classes if name not in empty),
            tuple(f"left out, torchvision's class {name!r} has no image" for name in empty),
        )

    def encode(self, splits: Mapping[str, Samples]) -> tuple[dict[str, Samples], dict[str, Any]]:
        """Images as they are."""
        images = splits["train"].inputs
        return dict(splits), {"channels": images.shape[1] if isinstance(images, Tensor) else 3}

    def _splits(self) -> dict[str, Dataset]:
        """The official splits as torchvision gives them; `train` alone where there are none."""
        self._check_options()
        parameters = parameters_of(self._class)
        if "train" in parameters:
            return {"train": self._open(train=True), "test": self._open(train=False)}
        if "split" not in parameters:
            return {"train": self._open()}
        splits = {}
        for split, names in SPLITS.items():
            opened = (self._open_split(name) for name in names)
            if dataset := next((dataset for dataset in opened if dataset is not None), None):
                splits[split] = dataset
        if "train" not in splits:
            raise GraftError(f"{self.key}.name={self.name}: it has no split to train on that comes with labels.")
        if "test" not in splits and "val" in splits:
            splits["test"] = splits.pop("val")
        return splits

    @property
    def _class(self) -> type[Dataset]:
        """The class that `name` names."""
        names = {name.lower(): name for name in datasets.__all__}
        if self.name not in names.values() or not inspect.isclass(getattr(datasets, self.name)):
            close = difflib.get_close_matches(self.name.lower(), names, n=3, cutoff=0)
            raise GraftError(
                f"{self.key}.name={self.name!r} is no class of torchvision.datasets. "
                f"Closest: {', '.join(names[name] for name in close)}."
            )
        if self.name in ("ImageFolder", "DatasetFolder"):
            raise GraftError(
                f"{self.key}.name={self.name}: it reads a folder of images, which Graft reads itself, official splits "
                f"and all. In the place of {self.key}.name give data/domain@{self.key}=image_folder "
                f"{self.key}.root={self.root}"
            )
        gives = next((what for what, some in OTHERS.items() if self.name in some), None)
        if gives is None and self.name.endswith("Stereo"):
            gives = "the depth between two images"
        if gives:
            raise GraftError(f"{self.key}.name={self.name}: it gives {gives}, but each image needs one class.")
        return getattr(datasets, self.name)

    def _check_options(self) -> None:
        """Raise GraftError for options that the class has not, or needs, or that Graft gives itself."""
        parameters = parameters_of(self._class)
        allowed = {name: one for name, one in parameters.items() if name not in self._given(parameters)}
        listed = ", ".join(allowed) or "none"
        for name in self.options:
            if name not in allowed:
                raise GraftError(f"{self.key}.options.{name}: no such option of {self.name}. Allowed: {listed}.")
        for name, parameter in allowed.items():
            if parameter.default is parameter.empty and name not in self.options:
                values = getattr(self._class, f"{name}s", None)
                some = [str(value) for value in values] if isinstance(values, tuple | list) else ["<value>"]
                raise GraftError(
                    f"{self.key}.options.{name}: {self.name} needs it. "
                    + (f"Allowed: {', '.join(some)}; for example " if len(some) > 1 else "Give it: ")
                    + f"{self.key}.options.{name}={some[-1]}"
                )

    def _given(self, parameters: Mapping[str, inspect.Parameter]) -> set[str]:
        """Arguments that are no options, because Graft chooses them. EMNIST's `split` is none of its splits."""
        return set(CHOSEN) - ({"split"} if "train" in parameters else set())

    def _open_split(self, split: str) -> Dataset | None:
        """What the data set calls `split`; None where it has none, or keeps its labels secret."""
        try:
            dataset = self._open(split=split)
        except ValueError as error:
            if f"Unknown value '{split}'" in str(error):
                return None
            raise GraftError(f"{self.key}.name={self.name}: {first_line(error)}.") from error
        return None if None in labels_of(dataset) else dataset

    def _open(self, **split: Any) -> Dataset:
        """One split. Raises GraftError that names the folder where files are expected, when they are not there."""
        fetches = "download" in parameters_of(self._class)
        options = {"download": self.download} if fetches else {}
        dataset: Any = self._class.__new__(self._class)
        try:
            try:
                dataset.__init__(str(self.root), **split, **options, **self.options)
            except (RuntimeError, OSError):
                if not unpacked(folder_of(dataset, self.root)):
                    raise
                dataset.__init__(str(self.root), **split, **options, **self.options)
        except (RuntimeError, OSError) as error:
            folder = folder_of(dataset, self.root)
            advice = "Put them there" + (
                f", or set {self.key}.download=true to fetch them." if fetches else " by hand."
            )
            if self.download and fetches:
                advice = "They could not be fetched; put them there by hand."
            if archives := archives_in(folder, self.root):
                advice = f"Unpack {', '.join(map(str, archives[:3]))} there" + advice.removeprefix("Put them there")
            raise GraftError(
                f"{self.key}.name={self.name}: torchvision expects its files in {folder}. {advice} "
                f"It says: {str(error).split('. ')[0]}."
            ) from error
        except ModuleNotFoundError as error:
            raise GraftError(f"{self.key}.name={self.name}: {first_line(error)}. Install it with pip.") from error
        except Exception as error:  # whatever it raises for damaged files, or for options that it does not take
            if "Unknown value" in str(error) and "split" in split:
                raise
            given = " ".join(f" {self.key}.options.{name}={value}" for name, value in self.options.items())
            raise GraftError(
                f"{self.key}.name={self.name}{given}: torchvision cannot read its files in "
                f"{folder_of(dataset, self.root)} ({type(error).__name__}: {first_line(error)}). Replace what is "
                "damaged there, or correct the options."
            ) from error
        return dataset


def parameters_of(cls: Any) -> dict[str, inspect.Parameter]:
    """Arguments of a class, those that it hands on to the class above it too."""
    found: dict[str, inspect.Parameter] = {}
    for one in cls.__mro__:
        if "__init__" not in vars(one):
            continue
        parameters = dict(inspect.signature(one.__init__).parameters)
        found = {name: p for name, p in parameters.items() if name != "self"} | found
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return {name: p for name, p in found.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


def folder_of(dataset: Dataset, root: Path) -> Path:
    """Where a data set looks for its files: a class sets it before it looks, so an unfinished object knows it."""
    folder = getattr(dataset, "raw_folder", None) or getattr(dataset, "_base_folder", None)
    return Path(folder or root / getattr(dataset, "base_folder", ""))


def unpacked(folder: Path) -> bool:
    """Whether there were `.gz` files of single files in a folder, which now lie beside them unpacked."""
    packed = [path for path in sorted(folder.glob("*-ubyte.gz")) if not path.with_suffix("").exists()]
    for path in packed:
        try:
            content = gzip.decompress(path.read_bytes())
        except (OSError, EOFError, zlib.error) as error:
            raise GraftError(f"{path} cannot be unpacked: {first_line(error)}. Replace the file.") from error
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(content)
        os.replace(file.name, path.with_suffix(""))
    return bool(packed)


def archives_in(*folders: Path) -> list[Path]:
    """Packed files that lie where a data set is looked for."""
    return sorted({path for one in folders if one.is_dir() for path in one.iterdir() if path.suffix in PACKED})


class DecodedImages(Sequence):
    """Images that torchvision decodes when asked for."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]  # nobody slices it
        try:
            return image_tensor(self.dataset[index][0])
        except Exception as error:  # whatever its decoder raises
            raise GraftError(
                f"Image {index} of torchvision's {type(self.dataset).__name__} cannot be read "
                f"({detail(error)}). Replace its file."
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


def labels_of(dataset: Any) -> list[int]:
    """The class of every image, without decoding it where the data set keeps a list of classes."""
    for name in ("targets", "labels", "_labels", "y"):
        labels = getattr(dataset, name, None)
        if labels is not None and np.ndim(labels) == 1 and len(labels) == len(dataset):
            return labels.tolist() if hasattr(labels, "tolist") else list(labels)
    return [label for _, label in getattr(dataset, "_samples", dataset)]


def files_of(dataset: Any) -> list[Path]:
    """The file of every image; empty where the data set does not keep a list of files."""
    for name in ("_image_files", "_images", "_samples", "samples", "imgs"):
        entries = getattr(dataset, name, [])
        files = [entry[0] if isinstance(entry, tuple) else entry for entry in entries]
        if files and len(files) == len(dataset) and all(isinstance(file, str | Path) for file in files):
            return [Path(file) for file in files]
    return []


def looked_into(dataset: Dataset, cache: DiskCache | None) -> list[Look]:
    """What is found in every image: a hash of its file, or of its pixels where the data set does not tell the file."""
    images, files = images_of(dataset), files_of(dataset)
    if isinstance(images, Tensor):
        rows = images.numpy()
        return looks_of_arrays(rows, hashes_of(rows), cache)
    digests = file_digests(files)

    def look(index: int) -> Look:
        if files and (problem := file_problem(files[index])):
            return Look(b"", problem)
        try:
            image = dataset[index][0]
            if files and is_deep(files[index]):
                return Look(b"", "it has more than 8 bits a colour, of which torchvision's reader keeps wrong ones")
            digest = digests[index] if digests else hashlib.sha256(image_tensor(image).numpy().tobytes()).digest()
            return Look(digest, thumbnail=thumbnail_of(image))
        except Exception as error:  # whatever its decoder raises
            return Look(b"", f"it cannot be read as an image ({detail(error)})")

    if not digests:
        return look_at(range(len(images)), look)
    return looks_of(digests, look, cache, {"dataset": type(dataset).__name__}, [__name__])


def class_names(dataset: Dataset, number: int) -> tuple[str, ...]:
    """Names of the classes; their numbers where the data set has no names, "3" for MNIST's "3 - three"."""
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None) or range(number)
    names = [name[0] if isinstance(name, tuple) else str(name) for name in names]
    digits = [re.fullmatch(r"(\d) - \w+", name) for name in names]
    numbers = [match[1] for match in digits if match]
    return tuple(numbers) if len(numbers) == len(digits) else tuple(names)
