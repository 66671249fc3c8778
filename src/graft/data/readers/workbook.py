"""Excel workbooks of one sheet, as the CSV file that Excel would save."""

import csv
import io
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from graft.errors import GraftError, first_line

WORKBOOK = b"PK\x03\x04"  # how the file begins: a zip archive


def csv_of(path: Path, content: bytes, key: str) -> str:
    """The values of a workbook's only sheet that has any; a row stays on its line.

    Raises GraftError that names `key` where it cannot be read or has several such sheets.
    """
    instead = f"save the sheet as CSV: {key}=/path/to/table.csv"
    try:
        from openpyxl import load_workbook
    except ModuleNotFoundError:
        raise GraftError(
            f"{key}={path}: Excel workbooks need openpyxl. Install it: pip install '.[excel]', or {instead}"
        ) from None
    try:
        book = load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheets = {sheet.title: rows for sheet in book.worksheets if (rows := rows_of(sheet.values))}
    except Exception as error:  # whatever it raises for an archive that is no workbook, or a damaged one
        raise GraftError(
            f"{key}={path} cannot be read as an Excel workbook (.xlsx): {first_line(error)}. "
            f"Write it again, or {instead}"
        ) from None
    if len(sheets) > 1:
        raise GraftError(
            f"{key}={path}: {len(sheets)} sheets of the workbook hold values, {', '.join(sheets)}. "
            f"Leave one, or {instead}"
        )
    text = io.StringIO()
    csv.writer(text).writerows(next(iter(sheets.values()), []))
    return text.getvalue()


def rows_of(values: Iterable[tuple[Any, ...]]) -> list[list[str]]:
    """Cells as text, without columns and rows at the end that are empty throughout; an empty row has no cell."""
    rows = [[text_of(value) for value in row] for row in values]
    width = max((place for row in rows for place, text in enumerate(row, start=1) if text), default=0)
    last = max((number for number, row in enumerate(rows, start=1) if any(row)), default=0)
    return [[*row[:width], *[""] * (width - len(row))] if any(row) else [] for row in rows[:last]]


def text_of(value: Any) -> str:
    """A cell's value in one line; a day without a time as one writes it."""
    if isinstance(value, datetime) and value == datetime(value.year, value.month, value.day):
        return value.date().isoformat()
    return "" if value is None else " ".join(str(value).splitlines())
