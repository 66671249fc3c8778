"""Texts with labels, row by row, whatever they come from."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graft.data.domain import Domain
from graft.data.readers.labelled import Record, raw_of
from graft.data.samples import Raw, Samples
from graft.errors import GraftError

LONGEST_SHOWN = 40  # characters of a value in a message


class LabelledTexts(Domain):
    """A domain of texts that `records` gives."""

    modality = "text"
    noun = "texts"
    label_kinds = ("classes", "numbers", "multilabel", "texts")
    unit = "rows"
    encoding = "utf-8"  # of what is read

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

    def record(
        self,
        file: Path,
        number: int | None,
        text: Any,
        label: Any,
        columns: Mapping[str, Any] | None = None,
        advice: str = "",
    ) -> Record:
        """A row of what stands in the two columns, with a problem where that is no text with a label.

        `columns` are the row's others; `advice` is on encodings.
        """
        problem = self._text_problem(text, advice) or self._label_problem(label, advice)
        if problem:
            return Record(file, number, "", "", problem)
        listed = isinstance(label, list | tuple)
        return Record(
            file, number, text.strip(), tuple(map(word_of, label)) if listed else word_of(label), columns=columns or {}
        )

    def check_split_columns(self, records: Sequence[Mapping[Any, Any]]) -> None:
        """Raise GraftError for a column that a split asks for and that no record has."""
        names = list(dict.fromkeys(str(name) for record in records for name in record))
        for key in ("group", "time"):
            if (wanted := self.split.get(key)) and str(wanted) not in names:
                raise GraftError(
                    f"{self.key}.split.{key}={wanted}: there is no such column. Columns: {', '.join(names)}."
                )

    def _text_problem(self, text: Any, advice: str) -> str:
        """Why what stands in the column of texts cannot be used, empty where it can."""
        if text is None or text != text or not str(text).strip():
            return "its text is empty"
        if not isinstance(text, str):
            return f"its text is no text but {shortened(text)}"
        if "\0" in text:
            return "it holds a NUL byte"
        return f"it {problem}" if (problem := not_readable(text, self.encoding, advice)) else ""

    def _label_problem(self, label: Any, advice: str) -> str:
        """Why a value is no label; empty where it is one. No word is none of several labels."""
        several = self.label_kind == "multilabel"
        if isinstance(label, list | tuple) and not several:
            return (
                f"its label is a list, {shortened(label)}: {self.key}.label_kind=multilabel task=multilabel takes such"
            )
        if isinstance(label, dict):
            return f"its label is no label but {shortened(label)}"
        if isinstance(label, list | tuple) or (several and label == ""):
            return ""
        if not word_of(label):
            return f"its label is missing ({label!r})"
        return f"it {problem}" if (problem := not_readable(str(label), self.encoding, advice)) else ""

    def near_keys(self, splits: Mapping[str, Samples]) -> dict[str, list[str]]:
        """Texts without case, punctuation and blanks."""
        return {name: [normalised(text) for text in samples.inputs] for name, samples in splits.items()}

    def encode(self, splits: Mapping[str, Samples]) -> tuple[dict[str, Samples], dict[str, Any]]:
        """Texts as they are; a vocabulary may be made of train's words."""
        return dict(splits), {"backbone_arguments": {"texts": splits["train"].inputs}}


def normalised(text: str) -> str:
    """A text without case, punctuation and blanks."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())


def word_of(label: Any) -> str:
    """A label as a word; empty where it is missing. 1.0 is 1."""
    if label is None or label != label:
        return ""
    word = str(int(label) if isinstance(label, float) and label.is_integer() else label).strip()
    return "" if word.lower() == "nan" else word


def not_readable(text: str, encoding: str, advice: str) -> str:
    """Where a text was read from bytes of another encoding, and what helps; empty where it was not."""
    try:
        text.encode()
        return ""
    except UnicodeEncodeError as error:  # of a surrogate, which stands for a byte
        place = error.start
    before = f"behind {text[:place][-20:]!r}" if place else "from its beginning"
    return f"is not {encoding.upper()} {before}" + (f" ({advice})" if advice else "")


def shortened(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


class Texts(Sequence):
    """Some texts by index; not a list, which Hydra would take for a part of the config."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: Any) -> Any:
        return self.texts[index]
