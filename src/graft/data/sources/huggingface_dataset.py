"""Texts of a Hugging Face data set: by its name on the hub, or from a folder on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graft.backbones.huggingface import hub_answers
from graft.config.types import FractionBelowOne
from graft.data.domain import OnBadSample
from graft.data.readers.labelled import Record
from graft.data.readers.texts import LabelledTexts, labelled_record
from graft.errors import GraftError, first_line

# Names that data sets give their splits, the first that exists counts.
SPLIT_NAMES = {"train": ("train",), "val": ("validation", "val", "valid", "dev"), "test": ("test",)}
SAVED = ("dataset_dict.json", "state.json")  # what `save_to_disk` writes for a data set of splits, and for one split
UNLABELLED = -1  # what public data sets put where the labels of a test are kept secret


class HuggingFaceDataset(LabelledTexts):
    """A text classification data set with its official splits; those without labels are left out."""

    def __init__(
        self,
        name: str,
        config: str | None = None,
        text: str = "text",
        label: str = "label",
        classes: Sequence[str | int] | None = None,
        val_fraction: FractionBelowOne = 0.15,
        test_fraction: FractionBelowOne = 0.15,
        on_bad_sample: OnBadSample = "error",
    ) -> None:
        """`config` is the data set's own word for one of its variants."""
        super().__init__(label, classes, val_fraction, test_fraction, on_bad_sample)
        self.name = name
        self.config = config
        self.text = text

    @property
    def title(self) -> str:
        """The last component of the name, with the variant."""
        return "/".join([Path(self.name).name, *([self.config] if self.config else [])])

    def origin(self, split: str) -> str:
        """Key and name of the data set."""
        return f"{self.key}.name={self.name}, {split}"

    def read(self) -> dict[str, list[Record]]:
        """Rows of every official split that has labels."""
        found = self._dataset()
        names = {split: next((name for name in known if name in found), None) for split, known in SPLIT_NAMES.items()}
        if names["train"] is None:
            raise GraftError(f"{self.key}.name={self.name}: it has no split `train`, but {', '.join(found)}.")
        rows = {split: self._records(found[name], str(name)) for split, name in names.items() if name is not None}
        return {split: kept for split, kept in rows.items() if kept}

    def _records(self, rows: Any, name: str) -> list[Record]:
        """Rows of a split; none where it has no labels."""
        for key, column in {"text": self.text, "label": self.label}.items():
            if column not in rows.features:
                raise GraftError(
                    f"{self.key}.{key}={column}: {self.name} has no such column; it has {', '.join(rows.features)}. "
                    f"Name one of them: {self.key}.{key}=<column>"
                )
        labels = [*rows[self.label]]
        if all(label == UNLABELLED for label in labels):
            return []
        if names := getattr(rows.features[self.label], "names", None):
            labels = [names[label] if label in range(len(names)) else None for label in labels]
        pairs = zip(rows[self.text], labels, strict=True)
        return [labelled_record(Path(self.name) / name, number, *pair) for number, pair in enumerate(pairs, start=1)]

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
        folder = Path(self.name).expanduser()
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
                "Give a folder that `dataset.save_to_disk(folder)` wrote where there is a network, "
                "or a file, whose bad rows are named: data/domain@data.target=text_file"
            ) from error
