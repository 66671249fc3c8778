"""Your own photos: a table of their paths and labels, or one for each of train, val and test."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from graft.data.readers.folders import shown
from graft.data.readers.label_columns import yes_or_no
from graft.data.readers.labelled_images import LabelledImages
from graft.data.readers.table import Table, column_name, to_texts
from graft.data.readers.table_files import ListedFiles
from graft.data.samples import Raw, Samples
from graft.errors import GraftError


class ImageFile(ListedFiles, LabelledImages):
    """A CSV or Parquet file with a row for each image; missing splits are split off by seed, group or time.

    Labels are a column of classes or of numbers; of several labels a sample a column such as `cat|dog`, or a column of
    0 and 1, or yes and no, for each of them. A source may have none, as beside captions.
    """

    may_lack_labels = True

    def __init__(
        self,
        file: str,
        label: str | int | Sequence[str | int] | None = "label",
        classes: Sequence[str | int] | None = None,
        **settings: Any,
    ) -> None:
        """`label` is a column by name or number, or several of them; null: samples have none."""
        super().__init__(file, **settings)
        self.label = label
        self.labelled = label is not None
        self.classes = None if classes is None else tuple(str(name) for name in classes)

    def read(self) -> Raw:
        """The rows of every file; each image is decoded, so that a broken one is found before anything is trained."""
        several = not isinstance(self.label, str | int | None)
        labels = columns_of(self.label)
        if several and self.label_kind != "multilabel":
            raise GraftError(
                f"{self.key}.label={labels}: several columns are several labels a sample: "
                f"{self.key}.label_kind=multilabel task=multilabel"
            )
        tables = self.tables()
        splits = {split: self._samples(table, split, several) for split, table in tables.items()}
        classes = self.classes
        if several:
            classes = classes or tuple(column_name(tables["train"], one, f"{self.key}.label") for one in labels)
            if len(classes) != len(labels):
                raise GraftError(f"{self.key}.classes names {len(classes)} labels, but {self.key}.label {len(labels)}.")
        return self.with_looks(Raw(splits, None if self.label_kind == "numbers" else classes))

    def _samples(self, table: Table, split: str, several: bool) -> Samples:
        """All rows of a table, with what is wrong with those that cannot be used."""
        file = self.files[split]
        path, names = self.named_columns(table, split, columns_of(self.label))
        texts = to_texts(table.columns[path])
        usable, unread = [], [(f"{file}, row {line}", problem) for line, problem in sorted(table.bad.items())]
        paths = []
        for index, (line, text) in enumerate(zip(table.lines.tolist(), texts, strict=True)):
            if text is None:
                unread.append((f"{file}, row {line}", "its path is missing"))
                continue
            usable.append(index)
            paths.append(self.located(split, text))
        rows = table.rows(np.array(usable, dtype=np.int64))
        labels, problems = yes_or_no(rows, names) if several else (words_in(rows, names), {})
        return Samples(
            inputs=paths,
            labels=labels,
            places=[
                f"{file}, row {line} ({shown(path)})" for line, path in zip(rows.lines.tolist(), paths, strict=True)
            ],
            contents=None,
            problems=problems,
            columns={
                name: list(to_texts(values)) for name, values in rows.columns.items() if name not in (path, *names)
            },
            unread=unread,
        )


def words_in(rows: Table, names: Sequence[str]) -> list[str | None]:
    """What the labels' one column holds; nothing where there is none."""
    return list(to_texts(rows.columns[names[0]])) if names else [None] * len(rows)


def columns_of(label: str | int | Sequence[str | int] | None) -> list[str | int]:
    """The labels' columns, none, one or several."""
    if label is None:
        return []
    return [label] if isinstance(label, str | int) else list(label)
