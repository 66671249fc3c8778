"""Predictions of a command as rows of a CSV, JSON-lines or Parquet file, written batch by batch."""

import csv
import io
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from graft.files import written_whole
from graft.model.predictions import text_of

if TYPE_CHECKING:  # a mistake in the command needs no torch
    from graft.model.explain import Explanation

Row = dict[str, Any]


def row_of(name: str, result: Mapping[str, Any], explanation: Row | None) -> Row:
    """What is written of one input, as JSON has it."""
    row = {"input": name, **result}
    if "nearest" in row:
        row["nearest"] = [asdict(one) for one in row["nearest"]]
    return row if explanation is None else row | {"explanation": explanation}


def write_rows(output: Path | None, batches: Iterator[Sequence[Row]]) -> int:
    """Write all rows to a file that appears whole or not at all, or as CSV to standard output; how many there are.

    Nothing is written without a row. Raises OSError where the file cannot be written.
    """
    first = next((batch for batch in batches if batch), None)
    if first is None:
        return 0
    all_batches = itertools.chain([first], batches)
    if output is None:
        return write_csv(sys.stdout, all_batches)
    output.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(output) as whole:
        if output.suffix == ".parquet":
            return write_parquet(whole, all_batches)
        with as_text(whole) as stream:
            return (write_csv if output.suffix == ".csv" else write_lines)(stream, all_batches)


@contextmanager
def as_text(file: BinaryIO) -> Iterator[TextIO]:
    """A binary file to write text to, which stays open."""
    stream = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    yield stream
    stream.detach()


def write_csv(stream: TextIO, batches: Iterable[Sequence[Row]]) -> int:
    """Rows under a header."""
    writer, count = None, 0
    for rows in batches:
        found = [flat(row) for row in rows]
        if writer is None:
            writer = csv.DictWriter(stream, list(found[0]), lineterminator="\n")
            writer.writeheader()
        writer.writerows(found)
        count += len(rows)
    return count


def write_lines(stream: TextIO, batches: Iterable[Sequence[Row]]) -> int:
    """A JSON object in each line."""
    count = 0
    for rows in batches:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        count += len(rows)
    return count


def write_parquet(file: BinaryIO, batches: Iterable[Sequence[Row]]) -> int:
    """The columns of the CSV."""
    import pyarrow
    from pyarrow import parquet

    types = {bool: pyarrow.bool_(), float: pyarrow.float64()}
    writer, count = None, 0
    for rows in batches:
        found = [flat(row) for row in rows]
        if writer is None:
            schema = pyarrow.schema(
                [(name, types.get(type(value), pyarrow.string())) for name, value in found[0].items()]
            )
            writer = parquet.ParquetWriter(file, schema)
        writer.write_table(pyarrow.Table.from_pylist(found, schema))
        count += len(rows)
    if writer is not None:
        writer.close()
    return count


def flat(row: Row) -> Row:
    """A row of plain values: three columns for each neighbour, and `p(<class>)` for each class."""
    found: Row = {}
    for name, value in row.items():
        if name == "prediction" and isinstance(value, list):  # boxes
            found[name] = json.dumps(value, ensure_ascii=False)
        elif name == "prediction":
            found[name] = value if isinstance(value, float) else text_of(value)
        elif name == "nearest":
            for number, one in enumerate(value, start=1):
                found |= {
                    f"nearest {number}": one["sample"],
                    f"nearest {number} label": one["label"],
                    f"nearest {number} similarity": one["similarity"],
                }
        elif name == "explanation":
            found[name] = one_line(value)
        elif name == "probabilities":
            found |= {f"p({label})": probability for label, probability in value.items()}
        else:
            found[name] = value
    return found


def one_line(explanation: Row) -> str:
    """The picture's file, the weights as JSON, or why there is neither."""
    if "parts" in explanation:
        return json.dumps(explanation["parts"], ensure_ascii=False)
    if "weights" in explanation:
        return json.dumps(explanation["weights"], ensure_ascii=False)
    return explanation.get("picture") or f"withheld: {explanation['withheld']}"


def explanation_row(explanation: "Explanation") -> Row:
    """An explanation as JSON has it, without its picture."""
    row: Row = {"method": explanation.method}
    if explanation.left is not None:
        row["left"] = round(explanation.left, 4)
    if explanation.withheld:
        return row | {"withheld": explanation.withheld}
    if explanation.weights is not None:
        return row | {"weights": [[unit, round(weight, 4)] for unit, weight in explanation.weights]}
    return row


class Explanations:
    """Turns explanations into rows, and writes their pictures into a folder beside the output."""

    def __init__(self, output: Path | None) -> None:
        self.folder = None if output is None else output.with_name(f"{output.stem}_explained")
        self.number = 0

    def row(self, name: str, explanation: "Explanation | None") -> Row | None:
        """The explanation of the next input, None without one."""
        self.number += 1
        if explanation is None:
            return None
        plain = re.sub(r"[^\w-]+", "_", Path(name).stem)
        row = self.with_picture(explanation, plain)
        if explanation.parts:
            row["parts"] = {part: self.with_picture(one, f"{plain}_{part}") for part, one in explanation.parts.items()}
        return row

    def with_picture(self, explanation: "Explanation", name: str) -> Row:
        """An explanation's row, its picture in a file."""
        row = explanation_row(explanation)
        if explanation.picture is None:
            return row
        assert self.folder is not None  # the command asks for an output
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{self.number}_{name}.png"
        file.write_bytes(explanation.picture)
        return row | {"picture": f"{self.folder.name}/{file.name}"}
