"""Rows with a label each: what lists of texts and of recordings have in common."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graft.data.samples import Raw, SampleInputs, Samples


@dataclass(frozen=True)
class Record:
    """A sample and its label or labels; `problem` is why it cannot be used, empty where it can."""

    file: Path
    number: int | None  # of the line on which it ends, from 1; None where the file is the sample
    content: Any
    label: str | Sequence[str]
    problem: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)  # other values of the row, for splits by group or time

    @property
    def place(self) -> str:
        """Where to look for it."""
        return str(self.file) if self.number is None else f"{self.file}, row {self.number}"


def raw_of(
    records: Mapping[str, Sequence[Record]],
    classes: tuple[str, ...] | None,
    inputs: Callable[[Sequence[Any]], SampleInputs],
    content: Callable[[Any], Hashable],
    left_out: Mapping[str, Mapping[str, int]] | None = None,
) -> Raw:
    """Records of every split as samples: `inputs` of their contents, equal ones by `content`.

    `left_out` counts by split and reason the files that are no samples.
    """
    splits = {name: samples_of(rows, inputs, content) for name, rows in records.items()}
    counts = left_out or {}
    return Raw({name: replace(one, left_out=counts.get(name, {})) for name, one in splits.items()}, classes)


def samples_of(
    records: Sequence[Record], inputs: Callable[[Sequence[Any]], SampleInputs], content: Callable[[Any], Hashable]
) -> Samples:
    """Records of one split as samples."""
    usable = [record for record in records if not record.problem]
    names = usable[0].columns if usable else {}
    return Samples(
        inputs=inputs([record.content for record in usable]),
        labels=[record.label for record in usable],
        places=[record.place for record in usable],
        contents=[content(record.content) for record in usable],
        columns={name: [record.columns.get(name) for record in usable] for name in names},
        unread=[(record.place, record.problem) for record in records if record.problem],
    )
