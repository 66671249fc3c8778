"""Your own photos: a folder per class, with official train/val/test folders or split by seed."""

import functools
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from graft.config.types import FractionBelowOne
from graft.data.domain import Domain, DomainData, OnBadSample, Split, content_groups, duplicate_notes, sha256
from graft.data.readers.folders import class_files, official_folders
from graft.data.splits import split_off
from graft.errors import GraftError

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


class ImageFolder(Domain):
    """`root/<class>/*.jpg`, or the same under `root/train`, `root/val`, `root/test`; missing splits come from train."""

    def __init__(
        self,
        root: str,
        val_fraction: FractionBelowOne = 0.15,
        test_fraction: FractionBelowOne = 0.15,
        channels: Literal[3, 1] = 3,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        """Channels: 3 for colour, 1 to read everything as grey. A broken file ends the run when its turn comes.

        With `on_bad_sample="skip"` every file is decoded once while they are listed, and broken ones are left out.
        """
        self.root = Path(root).expanduser()
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.channels = channels
        self.on_bad_sample = on_bad_sample

    def load(self, split_seed: int) -> DomainData:
        """List files and split what has no official split; copies of one image stay on one side.

        Raises GraftError for a missing folder, a class without images, or a class that training never sees.
        """
        official, classes, notes = self._official
        train, labels = official["train"]
        splits = {
            name: Split(ImageFiles(files, self.channels), split_labels, f"{self.fingerprint}/{name}")
            for name, (files, split_labels) in official.items()
        }
        sizes = {"test": self.test_fraction, "val": self.val_fraction}
        sizes = {name: size for name, size in sizes.items() if name not in official}
        groups = content_groups(self._hashes[path] for path in train)
        if sizes:
            whole, origin = splits["train"], f"{self.key}.root={self.root}"
            cut = split_off(labels, sizes, split_seed, groups, key=self.key, origin=origin, noun="images")
            splits |= {name: whole.subset(index) for name, index in cut.items()}
        return DomainData(
            name=self.root.name,
            train=splits["train"],
            val=splits["val"],
            test=splits["test"],
            classes=classes,
            channels=self.channels,
            fingerprint=self.fingerprint,
            notes=(*notes, *duplicate_notes(groups, labels, "images")),
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of relative paths and file contents, and of how they are read."""
        files = sorted(self._hashes)
        names = (str(path.relative_to(self.root)).encode() for path in files)
        return sha256([str(self.channels).encode(), *names, *(self._hashes[path] for path in files)])

    @functools.cached_property
    def _hashes(self) -> dict[Path, bytes]:
        """Content hash of every file of every split."""
        files = [path for paths, _ in self._official[0].values() for path in paths]
        with ThreadPoolExecutor(4) as pool:
            return dict(zip(files, pool.map(file_hash, files), strict=True))

    @functools.cached_property
    def _official(self) -> tuple[dict[str, tuple[list[Path], Tensor]], tuple[str, ...], tuple[str, ...]]:
        """Files and labels of every official split (`train` alone where there is none), class names, notes."""
        if not self.root.is_dir():
            raise GraftError(
                f"{self.key}.root={self.root}: no such folder. Give a folder with one sub-folder of images per class: "
                f"{self.key}.root=/path/to/photos"
            )
        folders = official_folders(self.root)
        found = {name: self._files(folder) for name, folder in folders.items()}
        classes = tuple(sorted(found["train"]))
        if len(classes) < 2:
            raise GraftError(
                f"{self.key}.root={self.root}: {folders['train']} needs at least 2 sub-folders of images, one per "
                f"class, but has {list(classes)}."
            )
        for name, files in found.items():
            if unknown := sorted(set(files) - set(classes)):
                raise GraftError(
                    f"{self.key}.root={self.root}: class {unknown[0]!r} is in {folders[name]} but not in "
                    f"{folders['train']}. Classes for training: {', '.join(classes)}."
                )
        bad = self._broken(found) if self.on_bad_sample == "skip" else {}
        if bad:
            found = {
                name: {label: [path for path in paths if path not in bad] for label, paths in files.items()}
                for name, files in found.items()
            }
            if empty := [label for label, paths in found["train"].items() if not paths]:
                raise GraftError(f"{self.key}.root={self.root}: no image of class {empty[0]!r} can be read.")
        first = next(iter(bad.values()), "")
        notes = (f"{len(bad):,} images are skipped, the first because {first}",) if bad else ()
        return {name: flatten(files, classes) for name, files in found.items()}, classes, notes

    def _broken(self, found: dict[str, dict[str, list[Path]]]) -> dict[Path, str]:
        """Files that cannot be decoded, and why."""

        def problem(path: Path) -> str:
            try:
                decode(path, self.channels, shorter=1)
            except GraftError as error:
                return str(error).partition(". ")[0]
            return ""

        paths = [path for files in found.values() for members in files.values() for path in members]
        with ThreadPoolExecutor(4) as pool:
            return {path: why for path, why in zip(paths, pool.map(problem, paths), strict=True) if why}

    def _files(self, folder: Path) -> dict[str, list[Path]]:
        """Image files of each class folder, in a fixed order."""
        return class_files(self.root, folder, EXTENSIONS, f"{self.key}.root={self.root}", "images")


class ImageFiles(Sequence):
    """Image files, decoded when asked for."""

    def __init__(self, files: list[Path], channels: int) -> None:
        self.files = files
        self.channels = channels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return decode(self.files[index], self.channels)

    def read(self, index: int, shorter: int) -> Tensor:
        """An image that is going to be resized to a shorter side of `shorter` pixels at most."""
        return decode(self.files[index], self.channels, shorter)


def decode(path: Path, channels: int = 3, shorter: int | None = None) -> Tensor:
    """Image file as uint8 `(channels, H, W)`; the first frame of an animation. Raises GraftError for a broken file.

    With `shorter`, a JPEG that is at least four times as large is decoded at a half, a quarter or an eighth of its
    size, in that share of the time; its shorter side is still at least twice `shorter`.
    """
    try:
        with Image.open(path) as image:
            if shorter is not None:
                image.draft(None, (2 * shorter, 2 * shorter))
            return image_tensor(ImageOps.exif_transpose(image), channels)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise GraftError(
            f"{path} cannot be read as an image: {str(error).rstrip('.')}. Replace or remove the file, or leave out "
            "all that are broken: data.target.on_bad_sample=skip"
        ) from error


def image_tensor(image: Image.Image, channels: int = 3) -> Tensor:
    """A PIL image of any mode as uint8 `(channels, H, W)`: 16 bits scaled down, transparency over white."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    pixels = np.array(image)
    return torch.from_numpy(pixels).reshape(image.height, image.width, channels).permute(2, 0, 1).contiguous()


def file_hash(path: Path) -> bytes:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).digest()


def flatten(files: dict[str, list[Path]], classes: tuple[str, ...]) -> tuple[list[Path], Tensor]:
    """Files of all classes in one list, and their labels `(N,)`."""
    paths = [path for name in classes for path in files.get(name, [])]
    labels = [label for label, name in enumerate(classes) for _ in files.get(name, [])]
    return paths, torch.tensor(labels, dtype=torch.int64)
