"""Texts with labels, row by row, whatever they come from."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graft.data.domain import Domain
from graft.data.readers.labelled import Record, raw_of
from graft.data.samples import Raw, Samples


class LabelledTexts(Domain):
    """A domain of texts that `records` gives."""

    modality = "text"
    noun = "texts"
    unit = "rows"

    def __init__(self, label: str | int, classes: Sequence[str | int] | None = None, **settings: Any) -> None:
        """`label` is the column of the labels; `classes` in their order, a row of another one is bad."""
        super().__init__(**settings)
        self.label = label
        self.classes = None if classes is None else tuple(str(name) for name in classes)

    @property
    def advice(self) -> str:
        """The key of the labels' column."""
        return f"{self.key}.label={self.label}: name another column."

    def records(self) -> dict[str, list[Record]]:
        """Rows of `train`, and of `val` and `test` where they are official, with those that cannot be used."""
        raise NotImplementedError

    @property
    def split_columns(self) -> tuple[str, ...]:
        """The columns that a split by group or time asks for."""
        return tuple(str(self.split[key]) for key in ("group", "time") if self.split.get(key))

    def read(self) -> Raw:
        """The texts of every split that there is."""
        return raw_of(self.records(), self.classes, Texts, str.encode)

    def near_keys(self, splits: Mapping[str, Samples]) -> dict[str, list[str]]:
        """Texts without case, punctuation and blanks."""
        return {name: [normalised(text) for text in samples.inputs] for name, samples in splits.items()}

    def encode(self, splits: Mapping[str, Samples]) -> tuple[dict[str, Samples], dict[str, Any]]:
        """Texts as they are; a vocabulary may be made of train's words."""
        return dict(splits), {"backbone_arguments": {"texts": splits["train"].inputs}}


def normalised(text: str) -> str:
    """A text without case, punctuation and blanks."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())


def labelled_record(file: Path, number: int, text: Any, label: Any, columns: Mapping[str, Any] | None = None) -> Record:
    """A row of what stands in the two columns, with a problem where that is no text with a label.

    `columns` are those that a split asks for.
    """
    if text is None or text != text or not str(text).strip():
        return Record(file, number, "", "", "its text is empty")
    if not isinstance(text, str):
        return Record(file, number, "", "", f"its text is no text but {text!r}")
    if problem := not_utf8(text) or not_utf8(str(label)):
        return Record(file, number, "", "", f"it {problem}")
    word = str(int(label) if isinstance(label, float) and label.is_integer() else label).strip()
    if label is None or word.lower() in ("", "nan") or isinstance(label, list | dict):
        return Record(file, number, text.strip(), "", f"its label is missing ({label!r})")
    return Record(file, number, text.strip(), word, columns=columns or {})


def not_utf8(text: str) -> str:
    """Where a text was read from bytes that are not UTF-8, and what helps; empty where it was not."""
    place = next((place for place, character in enumerate(text) if "\ud800" <= character <= "\udfff"), None)
    if place is None:
        return ""
    before = f"behind {text[:place][-20:]!r}" if place else "from its beginning"
    return f"is not UTF-8 {before} (iconv -f <its encoding, such as latin1> -t utf-8 <file> makes it so)"


class Texts(Sequence):
    """Some texts by index; not a list, which Hydra would take for a part of the config."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> str:
        return self.texts[index]
