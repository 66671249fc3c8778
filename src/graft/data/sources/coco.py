"""Boxes in COCO's layout: one JSON file for the images of a split."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graft.data.readers.boxes import Annotated, BoxImages
from graft.errors import GraftError, first_line
from graft.files import user_path

KEYS = {"train": "file", "val": "val_file", "test": "test_file"}
CROWD = "of crowds"


class COCO(BoxImages):
    """JSON files with `images`, `annotations` and `categories`; a missing split is split off train's."""

    def __init__(
        self,
        file: str,
        val_file: str | None = None,
        test_file: str | None = None,
        folder: str | None = None,
        val_folder: str | None = None,
        test_folder: str | None = None,
        **settings: Any,
    ) -> None:
        """Images are below `folder`, null is that of `file`; those of other splits below theirs, null is `folder`."""
        super().__init__(**settings)
        files = {"train": file, "val": val_file, "test": test_file}
        self.files = {split: user_path(name) for split, name in files.items() if name is not None}
        first = user_path(folder) if folder is not None else self.files["train"].parent
        own = {"val": val_folder, "test": test_folder}
        self.folders = {split: user_path(own[split] or first) if split in own else first for split in self.files}

    @property
    def title(self) -> str:
        """The name of the folder of images."""
        return self.folders["train"].absolute().name

    @property
    def advice(self) -> str:
        """Where boxes come from."""
        return (
            f"Give COCO's files and folders: {self.key}.file=annotations/instances_train.json "
            f"{self.key}.folder=/path/to/images"
        )

    def origin(self, split: str) -> str:
        """Key and name of a split's file."""
        return f"{self.key}.{KEYS[split]}={self.files.get(split, self.files['train'])}"

    def annotated(self) -> Mapping[str, Sequence[Annotated]]:
        """The images of every file."""
        for split, folder in self.folders.items():
            if not folder.is_dir():
                raise GraftError(f"{self.origin(split)}: there is no folder of images {folder}. {self.advice}")
        return {split: self._images(split) for split in self.files}

    def _images(self, split: str) -> list[Annotated]:
        """The images of a file, each with its boxes."""
        try:
            content = json.loads(self.files[split].read_text(encoding="utf-8"))
            names = {one["id"]: str(one["name"]) for one in content["categories"]}
            images = {one["id"]: image_of(one, self.folders[split]) for one in content["images"]}
            for one in content["annotations"]:
                image = images[one["image_id"]]
                if one.get("iscrowd"):
                    image.left_out[CROWD] += 1
                    continue
                x, y, width, height = map(float, one["bbox"])
                image.boxes.append((names[one["category_id"]], (x, y, x + width, y + height)))
        except OSError as error:
            raise GraftError(f"{self.origin(split)} cannot be read ({error.strerror}). {self.advice}") from None
        except (ValueError, TypeError, KeyError) as error:
            raise GraftError(
                f"{self.origin(split)} is no file of boxes in COCO's layout ({type(error).__name__}: "
                f"{first_line(error)}). {self.advice}"
            ) from None
        return [*images.values()]


def image_of(entry: Mapping[str, Any], folder: Path) -> Annotated:
    """An entry of `images` without its boxes."""
    size = (int(entry.get("height") or 0), int(entry.get("width") or 0))
    return Annotated(folder / entry["file_name"], size=size if all(size) else None)
