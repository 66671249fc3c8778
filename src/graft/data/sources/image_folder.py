"""Your own photos: a folder per class, with official train/val/test folders or split by seed."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from graft.data.domain import Domain
from graft.data.readers.folders import class_files, official_folders
from graft.data.samples import Raw, Samples
from graft.errors import GraftError

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


class ImageFolder(Domain):
    """`root/<class>/*.jpg`, or the same under `root/train`, `root/val`, `root/test`; missing splits come from train."""

    noun = "images"
    unit = "files"

    def __init__(self, root: str, channels: Literal[3, 1] = 3, **settings: Any) -> None:
        """Channels: 3 for colour, 1 to read everything as grey."""
        super().__init__(**settings)
        self.root = Path(root).expanduser()
        self.channels = channels

    @property
    def title(self) -> str:
        """The folder's name."""
        return self.root.name

    @property
    def advice(self) -> str:
        """Where classes come from."""
        return f"Give a folder with one sub-folder of images per class: {self.key}.root=/path/to/photos"

    def origin(self, split: str) -> str:
        """The folder."""
        return f"{self.key}.root={self.root}" + (f", {split}" if split != "train" else "")

    def read(self) -> Raw:
        """The files of every split; each is opened, so that a broken one is found before anything is trained."""
        if not self.root.is_dir():
            raise GraftError(f"{self.origin('train')}: no such folder. {self.advice}")
        folders = official_folders(self.root)
        files = {
            name: class_files(self.root, folder, EXTENSIONS, self.origin("train"), "images")
            for name, folder in folders.items()
        }
        classes = tuple(sorted(files["train"]))
        if len(classes) < 2:
            raise GraftError(
                f"{self.origin('train')}: {folders['train']} needs at least 2 sub-folders of images, one per class, "
                f"but has {list(classes)}."
            )
        return Raw(
            {name: self._samples(found) for name, found in files.items()}, classes, fingerprint=str(self.channels)
        )

    def _samples(self, files: dict[str, list[Path]]) -> Samples:
        """The files of all classes in one list."""
        paths = [path for name in sorted(files) for path in files[name]]
        with ThreadPoolExecutor(4) as pool:
            problems = [*pool.map(functools.partial(problem_of, channels=self.channels), paths)]
            contents = [*pool.map(file_hash, paths)]
        return Samples(
            inputs=ImageFiles(paths, self.channels),
            labels=[name for name in sorted(files) for _ in files[name]],
            places=[str(path) for path in paths],
            contents=contents,
            problems={index: problem for index, problem in enumerate(problems) if problem},
        )

    def encode(self, splits: Mapping[str, Samples]) -> tuple[dict[str, Samples], dict[str, Any]]:
        """Files, decoded when asked for."""
        return dict(splits), {"channels": self.channels}


def problem_of(path: Path, channels: int) -> str:
    """Why a file cannot be decoded; empty where it can."""
    try:
        decode(path, channels, shorter=1)
    except GraftError as error:
        return str(error).partition(". ")[0].removeprefix(f"{path} ")
    return ""


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
