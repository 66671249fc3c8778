"""Boxes in the layout of Pascal VOC: an XML file for each image."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from graft.data.readers.boxes import Annotated, BoxImages
from graft.data.readers.images import extensions
from graft.errors import GraftError, first_line
from graft.files import user_path

LISTS = {"train": "train", "val": "val", "test": "test"}  # split -> name of its list of images
DIFFICULT = "marked as difficult"


class VOC(BoxImages):
    """`root/Annotations/*.xml`, `root/JPEGImages`, and `root/ImageSets/Main/train.txt`, val and test where they are.

    Corners are read as they stand, as most tools write them, although VOC itself counts pixels from 1.
    """

    def __init__(self, root: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.root = user_path(root)

    @property
    def title(self) -> str:
        """The folder's name."""
        return self.root.absolute().name

    @property
    def advice(self) -> str:
        """Where boxes come from."""
        return f"Give a folder with Annotations and JPEGImages: {self.key}.root=/path/to/VOC2012"

    def origin(self, split: str) -> str:
        """The folder, and the list of a split."""
        return f"{self.key}.root={self.root}" + (f", ImageSets/Main/{split}.txt" if split != "train" else "")

    def annotated(self) -> Mapping[str, Sequence[Annotated]]:
        """The listed images; without a list for training all that have an annotation."""
        folder, images = self.root / "Annotations", self.root / "JPEGImages"
        for needed in (folder, images):
            if not needed.is_dir():
                raise GraftError(f"{self.key}.root={self.root}: there is no folder {needed.name}. {self.advice}")
        files = {path.stem: path for path in sorted(images.iterdir()) if path.suffix.lower() in extensions()}
        lists = {split: self.root / "ImageSets" / "Main" / f"{name}.txt" for split, name in LISTS.items()}
        if lists["train"].is_file():
            names = {split: names_in(path) for split, path in lists.items() if path.is_file()}
        else:
            names = {"train": sorted(path.stem for path in folder.glob("*.xml"))}
        return {
            split: [annotation_of(folder / f"{name}.xml", files.get(name, images / f"{name}.jpg")) for name in listed]
            for split, listed in names.items()
        }


def names_in(path: Path) -> list[str]:
    """The images of a list: the first word of each line, as lists of one class have another behind it."""
    return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def annotation_of(path: Path, image: Path) -> Annotated:
    """What an XML file says of an image; GraftError where it is none of VOC's."""
    try:
        root = ElementTree.parse(path).getroot()
        found = Annotated(image, size=stated_size(root))
        for one in root.iter("object"):
            x0, y0, x1, y1 = (float(one.findtext(f"bndbox/{name}", "")) for name in ("xmin", "ymin", "xmax", "ymax"))
            if one.findtext("difficult", "0").strip() == "1":
                found.left_out[DIFFICULT] += 1
            else:
                found.boxes.append((one.findtext("name", "").strip(), (x0, y0, x1, y1)))
    except OSError as error:
        raise GraftError(f"{path} cannot be read ({error.strerror}): {image.stem} is in a list of images.") from None
    except (ElementTree.ParseError, ValueError) as error:
        raise GraftError(
            f"{path} is no annotation of Pascal VOC ({first_line(error)}). Correct or remove it."
        ) from None
    return found


def stated_size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Height and width that an annotation states; None where it does not, or says 0 as some tools do."""
    height, width = (int(float(root.findtext(f"size/{name}", "0"))) for name in ("height", "width"))
    return (height, width) if height and width else None
