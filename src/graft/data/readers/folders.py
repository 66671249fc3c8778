"""A folder per class, with official train, val and test folders above or without: what images and recordings share."""

from collections.abc import Collection
from pathlib import Path

from graft.errors import GraftError

SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


def official_folders(root: Path) -> dict[str, Path]:
    """The folder of each official split; `train` alone, which is the root, where there is none."""
    if not (root / "train").is_dir() or not any(path.is_dir() for path in (root / "train").iterdir()):
        return {"train": root}
    paths = {split: [root / n for n in allowed if (root / n).is_dir()] for split, allowed in SPLIT_NAMES.items()}
    return {split: found[0] for split, found in paths.items() if found}


def class_files(root: Path, folder: Path, extensions: Collection[str], origin: str, noun: str) -> dict[str, list[Path]]:
    """Files of each class folder, in a fixed order; GraftError that names `origin` for a class without any."""
    files = {}
    for class_folder in sorted(folder.iterdir()):
        if class_folder.is_dir() and not class_folder.name.startswith("."):
            found = files_below(class_folder, root, extensions)
            if not found:
                raise GraftError(
                    f"{origin}: no {noun} in {class_folder}. "
                    f"Read are {', '.join(sorted(extensions))}; put some there or remove the folder."
                )
            files[class_folder.name] = found
    return files


def files_below(folder: Path, root: Path, extensions: Collection[str]) -> list[Path]:
    """Files of a folder and of those in it, in a fixed order; what is hidden below the root is left out."""

    def wanted(path: Path) -> bool:
        hidden = any(name.startswith(".") for name in path.relative_to(root).parts)
        return path.suffix.lower() in extensions and not hidden and path.is_file()

    return sorted(path for path in folder.rglob("*") if wanted(path))
