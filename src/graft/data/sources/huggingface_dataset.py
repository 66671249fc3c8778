"""Texts of a Hugging Face data set: by its name on the hub, or from a folder on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graft.backbones.huggingface import hub_answers
from graft.data.readers.labelled import Record
from graft.data.readers.texts import LabelledTexts
from graft.data.sources.text_file import FORMATS
from graft.errors import GraftError, first_line, override
from graft.files import user_path

# Names that data sets give their splits, the first that exists counts.
SPLITS = {"train": ("train",), "val": ("validation", "val", "valid", "dev"), "test": ("test",)}
SAVED = ("dataset_dict.json", "state.json")  # what `save_to_disk` writes for a data set of splits, and for one split
UNLABELLED = -1  # what public data sets put where the labels of a test are kept secret


class HuggingFaceDataset(LabelledTexts):
    """A data set of texts with its official splits; those without labels are left out."""

    def __init__(
        self,
        name: str,
        config: str | None = None,
        text: str = "text",
        label: str = "label",
        **settings: Any,
    ) -> None:
        """`config` is the data set's own word for one of its variants."""
        super().__init__(label, **settings)
        self.name = name
        self.config = config
        self.text = text

    @property
    def title(self) -> str:
        """The end of the name, with the variant."""
        return "/".join([Path(self.name).name, *([self.config] if self.config else [])])

    def origin(self, split: str) -> str:
        """Key and name of the data set."""
        return f"{self.key}.name={self.name}, {split}"

    def records(self) -> dict[str, list[Record]]:
        """Rows of every official split that has labels."""
        found = self._dataset()
        names = {split: next((name for name in known if name in found), None) for split, known in SPLITS.items()}
        if names["train"] is None:
            raise GraftError(f"{self.key}.name={self.name}: it has no split `train`, but {', '.join(found)}.")
        rows = {split: self._records(found[name], str(name)) for split, name in names.items() if name is not None}
        return {split: kept for split, kept in rows.items() if kept}

    def _records(self, split: Any, name: str) -> list[Record]:
        """Rows of a split; none where it has no labels."""
        for key, column in {"text": self.text, "label": self.label}.items():
            if column not in split.features:
                raise GraftError(
                    f"{self.key}.{key}={column}: {self.name} has no such column; it has {', '.join(split.features)}. "
                    f"Name one of them: {self.key}.{key}=<column>"
                )
        if name in SPLITS["train"]:
            self.check_split_columns([split.features])
        labels = [*split[self.label]]
        if self.label_kind != "numbers" and all(label == UNLABELLED for label in labels):
            return []
        feature = split.features[self.label]
        # Of a list of classes, the feature of its items.
        if names := getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None):
            labels = [named(label, names) for label in labels]
        columns = {name: split[name] for name in self.split_columns if name in split.features}
        return [
            self.record(
                Path(self.name) / name, index + 1, *row, {column: values[index] for column, values in columns.items()}
            )
            for index, row in enumerate(zip(split[self.text], labels, strict=True))
        ]

    def _dataset(self) -> Any:
        """The data set's splits by name."""
        try:
            import datasets
            from huggingface_hub import constants
        except ImportError as error:
            raise GraftError(
                f"{self.key}.name={self.name} needs the datasets library ({first_line(error)}). "
                "Install it: pip install '.[text]'"
            ) from error
        datasets.disable_progress_bars()
        folder = user_path(self.name)
        here = folder.is_dir()
        try:
            if here and any((folder / file).is_file() for file in SAVED):
                saved = datasets.load_from_disk(str(folder))
                return saved if isinstance(saved, dict) else {"train": saved}
            if not here and not hub_answers():
                datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True  # else it asks for half a minute
            return datasets.load_dataset(str(folder) if here else self.name, self.config)
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            what = "its files cannot be read" if here else "it is not on this machine and cannot be loaded"
            raise GraftError(
                f"{self.key}.name={self.name}: {what} ({first_line(error.__cause__ or error)}). "
                "Give a folder that `dataset.save_to_disk(folder)` wrote where there is a network; or a file, whose "
                f"bad rows are named, in the place of {self.key}.name: data/domain@{self.key}=text_file "
                f"{override(f'{self.key}.file', str(file_of_texts(folder) or '/path/to/texts.csv'))}"
            ) from error


def file_of_texts(place: Path) -> Path | None:
    """A file that text_file reads: this one, or the first such in a folder."""
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    return next((file for file in files if file.suffix.lower() in FORMATS and file.is_file()), None)


def named(label: Any, names: Sequence[str]) -> Any:
    """The name of a class's number, or the names of several; None for a number that stands for none."""
    if isinstance(label, list):
        return [named(one, names) for one in label]
    return names[label] if label in range(len(names)) else None
