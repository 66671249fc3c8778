"""Rows of a Hugging Face Dataset as pairs of a sample and its label, which the types of its columns tell apart."""

import io
import sys
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from graft.data.readers.recordings import imported_soundfile
from graft.data.samples import Modality
from graft.errors import GraftError

TEXTS = ("string", "large_string", "string_view")  # how Arrow calls them
LABELS = ("label", "labels")  # usual names of a column of labels that no type tells
DOMAINS = {"image": "image_pairs", "text": "text_pairs", "audio": "recording_pairs", "sequence": "sequence_pairs"}


def is_hub_dataset(part: Any) -> bool:
    """Whether it is a Dataset of Hugging Face, whose library is loaded then; one that streams is none."""
    datasets = sys.modules.get("datasets")
    return datasets is not None and isinstance(part, datasets.Dataset)


class HubRows:
    """Pairs (sample, label) by index.

    Raises GraftError, which names `key`, where the columns do not tell which is which.
    """

    def __init__(self, rows: Any, modality: Modality, key: str) -> None:
        sample, label = columns_of(rows.features, modality, key)
        self.title = rows.info.dataset_name or "Dataset"
        self.feature = rows.features[label]
        self.sample, self.label = sample, label
        self.rows = rows.select_columns([sample, label])
        decoded = getattr(rows.features[sample], "decode", None)
        if modality == "audio" and decoded:  # here as everywhere, without the library that Dataset has for it
            self.rows = self.rows.cast_column(sample, sys.modules["datasets"].Audio(decode=False))
        if modality == "image" and decoded is False:
            self.rows = self.rows.cast_column(sample, sys.modules["datasets"].Image())

    @cached_property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the labels 0, 1, ...; None where they have none."""
        names = getattr(self.feature, "names", None) or getattr(item_of(self.feature), "names", None)
        return None if names is None else tuple(names)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        row = self.rows[index]
        if row[self.sample] is None:
            raise ValueError(f"the column {self.sample} is empty")
        return contained(row[self.sample]), row[self.label]


def contained(value: Any) -> Any:
    """A sample as it is; of a sound file the path, or what its bytes hold: sound `(L,)` and samples a second."""
    if not isinstance(value, Mapping):
        return value
    if value["bytes"] is None:
        return value["path"]
    sound, rate = imported_soundfile().read(io.BytesIO(value["bytes"]), dtype="float32", always_2d=True)
    return sound.mean(1), rate


def columns_of(features: Mapping[str, Any], modality: Modality, key: str) -> tuple[str, str]:
    """The columns of the samples and of the labels; GraftError where these are none or several."""
    kinds = {name: kind_of(feature) for name, feature in features.items()}
    named = [name for name, kind in kinds.items() if kind == "label"]
    label = named[0] if len(named) == 1 else next((name for name in LABELS if name in kinds), None)
    samples = [name for name, kind in kinds.items() if kind == modality and name != label]
    sample = modality if modality in samples else samples[0] if len(samples) == 1 else None
    others = [name for name in kinds if name != sample]
    if label is None and len(others) == 1:
        label = others[0]
    if sample is not None and label is not None:
        return sample, label
    columns = ", ".join(f"{name} ({kind or type(features[name]).__name__})" for name, kind in kinds.items())
    if not samples:
        fitting = [domain for kind, domain in DOMAINS.items() if kind in kinds.values()]
        advice = (
            f"Choose data/domain@{key.rpartition('.')[0]}={fitting[0]}" if fitting else "Give pairs (sample, label)"
        )
        raise GraftError(f"{key}: this Dataset has no column of the type {modality}, but {columns}. {advice}.")
    shown = [sample or samples[0], label or next(iter([*named, *others]), "label")]
    raise GraftError(
        f"{key}: which column of this Dataset are the samples, and which the labels? It has {columns}. Give it with "
        f"the two alone, such as dataset.select_columns({shown})."
    )


def kind_of(feature: Any) -> str | None:
    """The modality of a column's values, or `label`; None for anything else."""
    datasets = sys.modules["datasets"]
    item = item_of(feature)
    if isinstance(feature, datasets.ClassLabel) or isinstance(item, datasets.ClassLabel):
        return "label"
    if isinstance(feature, datasets.Image):
        return "image"
    if isinstance(feature, datasets.Audio):
        return "audio"
    if isinstance(feature, datasets.Value) and feature.dtype in TEXTS:
        return "text"
    inner = item_of(item)
    numbers = isinstance(inner, datasets.Value) and inner.dtype not in TEXTS
    return "sequence" if isinstance(feature, datasets.Array2D) or numbers else None


def item_of(feature: Any) -> Any:
    """The feature of a list's items; None where it is no list."""
    return getattr(feature, "feature", None)
