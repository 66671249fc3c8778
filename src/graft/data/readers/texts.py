"""Texts with labels, row by row, whatever they come from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graft.data.domain import Split
from graft.data.readers.labelled import LabelledSamples, Record


class LabelledTexts(LabelledSamples):
    """A domain of texts that `read` gives."""

    modality = "text"
    noun = "texts"

    def __init__(self, label: str | int, *options: Any) -> None:
        """`label` is the column of the labels."""
        super().__init__(*options)
        self.label = label

    @property
    def advice(self) -> str:
        """The key of the labels' column."""
        return f"{self.key}.label={self.label}: name another column."

    def inputs(self, rows: Sequence[Record]) -> "Texts":
        """Their texts."""
        return Texts([row.content for row in rows])

    def bytes_of(self, row: Record) -> bytes:
        """The text."""
        return row.content.encode()

    def backbone_arguments(self, train: Split) -> dict[str, Any]:
        """Whose words a vocabulary may be made of."""
        return {"texts": train.inputs}


def labelled_record(file: Path, number: int, text: Any, label: Any) -> Record:
    """A row of what stands in the two columns, with a problem where that is no text with a label."""
    if text is None or text != text or not str(text).strip():
        return Record(file, number, "", "", "its text is empty")
    if not isinstance(text, str):
        return Record(file, number, "", "", f"its text is no text but {text!r}")
    if problem := not_utf8(text) or not_utf8(str(label)):
        return Record(file, number, "", "", f"it {problem}")
    word = str(int(label) if isinstance(label, float) and label.is_integer() else label).strip()
    if label is None or word.lower() in ("", "nan") or isinstance(label, list | dict):
        return Record(file, number, text.strip(), "", f"its label is missing ({label!r})")
    return Record(file, number, text.strip(), word)


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
