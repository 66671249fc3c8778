"""Your own photos: a folder per class, with official train/val/test folders or split by seed."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from graft.data.readers.folders import (
    Listing,
    beside_classes,
    class_folders,
    class_listings,
    layout_notes,
    official_folders,
)
from graft.data.readers.images import extensions
from graft.data.readers.labelled_images import LabelledImages
from graft.data.samples import Raw, Samples
from graft.errors import GraftError
from graft.files import user_path


class ImageFolder(LabelledImages):
    """`root/<class>/*.jpg`, or the same under `root/train`, `root/val`, `root/test`; missing splits come from train."""

    def __init__(self, root: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.root = user_path(root)

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
        """The files of every split; each is decoded, so that a broken one is found before anything is trained."""
        if not self.root.is_dir():
            raise GraftError(f"{self.origin('train')}: no such folder. {self.advice}")
        if self.label_kind == "multilabel":
            raise GraftError(
                f"{self.key}.label_kind=multilabel: a folder per class gives each image one label. List the images "
                f"with their labels in a table, and in the place of {self.key}.root give "
                f"data/domain@{self.key}=image_file {self.key}.file=/path/to/images.csv"
            )
        folders = official_folders(self.root, f"{self.key}.root")
        self._check_classes(folders["train"])
        listings = {
            name: class_listings(folder, extensions(), self.origin("train"), "images")
            for name, folder in folders.items()
        }
        splits = {name: samples_of(found) for name, found in listings.items()}
        beside = beside_classes(self.root, [*folders.values()], extensions())
        train = splits["train"]
        splits["train"] = replace(train, left_out={**train.left_out, **beside})
        notes = layout_notes(folders["train"], f"{self.key}.root")
        classes = tuple(listings["train"]) if self.label_kind == "classes" else None
        return self.with_looks(Raw(splits, classes, notes))

    def _check_classes(self, folder: Path) -> None:
        """Raise GraftError for a folder that has not at least two classes, with what is there instead."""
        names = [one.name for one in class_folders(folder)]
        if len(names) >= 2:
            return
        images = sum(path.suffix.lower() in extensions() for path in folder.iterdir() if path.is_file())
        advice = self.advice
        if len(names) == 1 and not images and len(class_folders(folder / names[0])) >= 2:
            advice = f"Its only folder has such sub-folders: {self.key}.root={folder / names[0]}"
        elif images and not names:
            advice = (
                f"It holds {images:,} images itself. If it is one of the classes, give the folder above: "
                f"{self.key}.root={folder.absolute().parent}"
            )
        raise GraftError(
            f"{self.origin('train')}: {folder} needs at least 2 sub-folders of images, one per class, but has {names}. "
            f"{advice}"
        )


def samples_of(listings: dict[str, Listing]) -> Samples:
    """The files of all classes in one list."""
    paths = [path for listing in listings.values() for path in listing.files]
    return Samples(
        inputs=paths,
        labels=[name for name, listing in listings.items() for _ in listing.files],
        places=[str(path) for path in paths],
        contents=None,
        unread=[one for listing in listings.values() for one in listing.unread],
        left_out=sum((listing.left_out for listing in listings.values()), Counter()),
    )
