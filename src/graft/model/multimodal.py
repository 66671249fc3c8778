"""New samples of several modalities, as a run's own were read: from a file, a data frame, columns, or records."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from graft.data.readers.multimodal import FILES, placed, rows_with
from graft.data.readers.table import Table, to_texts
from graft.data.readers.table_source import encode
from graft.errors import GraftError, listed
from graft.inputs.columns import Columns
from graft.inputs.fusion import MultimodalRows


def split_media(table: Table, media: Mapping[str, str]) -> tuple[Table, dict[str, list[Any]]]:
    """A table without its columns of texts and files, and these by modality. Raises GraftError for one it lacks."""
    if missing := [name for name in media.values() if name not in table.columns]:
        raise GraftError(
            f"{table.file}: it has no column {listed(missing)}. Columns: {', '.join(table.columns)}. A sample without "
            "that modality has an empty value there."
        )
    values = {name: list(to_texts(table.columns[column])) for name, column in media.items()}
    others = {name: column for name, column in table.columns.items() if name not in media.values()}
    return replace(table, columns=others), values


def multimodal_rows(table: Table, reading: Mapping[str, Any], columns: Columns | None) -> MultimodalRows:
    """Samples of a table's rows, whose values in the network's `columns` were checked before.

    Raises GraftError for files that are not there, and for a row that has nothing.
    """
    rest, values = split_media(table, reading["media"])
    folder = Path(table.file).parent
    paths = {
        name: [None if not one else one if isinstance(one, bytes) else placed(folder, one) for one in values[name]]
        for name in FILES
        if name in values
    }
    given = [one for found in paths.values() for one in found if isinstance(one, Path)]
    if missing := [str(one) for one in given if not one.is_file()]:
        raise GraftError(f"There is no file {listed(missing)}.")
    fields = None if columns is None else encode(rest, columns)
    rows = rows_with(fields, values.get("text"), paths, reading["channels"])
    if "table" not in rows.present:
        there = [any(bool(found[index]) for found in rows.present.values()) for index in range(len(rows))]
        if not all(there):
            raise GraftError(f"{table.file}, row {table.lines[there.index(False)]}: it has no modality at all.")
    return rows
