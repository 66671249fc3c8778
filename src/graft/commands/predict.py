"""Predict with a run's model: `graft predict run=<folder> input=<file or folder> [output=<file>]`."""

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from graft.errors import GraftError, listed
from graft.files import user_path, written_whole

USAGE = """graft predict run=<folder> input=<what> [output=<file.csv|.jsonl|.parquet>] [column=<name>] [batch_size=256]
  run        a run's folder, its model folder, or a sweep's folder (its best job)
  input      a file or a folder of images or recordings; a CSV, TSV, Parquet or JSONL file of rows or texts;
             a text file, or - for standard input: a text in each line; an .npz of sequences
  output     where predictions go; without it as CSV to standard output
  column     of a table that holds texts (text) or paths of files (path)
  allow      [packages] whose code the model may run: only if you trust it"""
KEYS = ("run", "input", "output", "column", "batch_size", "allow")
WRITERS = (".csv", ".jsonl", ".parquet")
UNREAD_SHOWN = 5
BATCH_SIZE = 256


def main(arguments: list[str]) -> int:
    """Write a prediction for each input; what cannot be read is counted and named. Exit code 1 if nothing could be."""
    settings = settings_of(arguments)
    if settings is None:
        print(USAGE, file=sys.stderr)
        return 2
    output = settings.get("output")
    if output and Path(output).suffix not in WRITERS:
        raise GraftError(f"output={output}: predictions are written as {', '.join(WRITERS)}.")
    batch_size = settings.get("batch_size", str(BATCH_SIZE))
    if not batch_size.isdigit() or batch_size == "0":
        raise GraftError(f"batch_size={batch_size}: a number of inputs from 1.")

    from graft import load_run  # torch
    from graft.model.files import found_in

    allow = [name.strip() for name in settings.get("allow", "").strip("[]").split(",") if name.strip()]
    model = load_run(settings["run"], allow=allow)
    modality = model.description.modality
    column = settings.get("column", "text" if modality == "text" else "path")
    columns = getattr(model.backbone.input_spec, "columns", None)
    found = found_in(settings["input"], modality, dict(model.description.reading), column, columns)
    unread = [*found.unread]
    rows = list(predicted(model, found, int(batch_size), unread))
    write_to(output, rows, model.classes)
    summary = [f"{len(rows):,} predicted"]
    summary += [f"{number:,} left out ({reason})" for reason, number in found.left_out.items()]
    if unread:
        reasons = listed([f"{name}: {problem}" for name, problem in unread], UNREAD_SHOWN, separator="; ")
        summary.append(f"{len(unread):,} could not be read ({reasons})")
    print(", ".join(summary) + (f": {output}" if output else ""), file=sys.stderr)
    return 0 if rows else 1


def settings_of(arguments: Sequence[str]) -> dict[str, str] | None:
    """The keys of the command line, None where run or input is missing. Raises GraftError for an unknown one."""
    pairs = [word.partition("=") for word in arguments]
    for word, (key, sign, _) in zip(arguments, pairs, strict=True):
        if not sign or key not in KEYS:
            raise GraftError(f"graft predict: {word!r} is none of its keys: {', '.join(KEYS)}.\n{USAGE}")
    settings = {key: value for key, _, value in pairs}
    return settings if {"run", "input"} <= settings.keys() else None


def predicted(model: Any, found: Any, batch_size: int, unread: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """A row for each input that can be read, batch by batch; `unread` takes the others with their reasons."""
    from tqdm import tqdm

    starts = range(0, len(found), batch_size)
    for start in tqdm(starts, unit="batch", disable=len(starts) < 2 or not sys.stderr.isatty()):
        stop = min(start + batch_size, len(found))
        try:
            results = list(model.predict(found.rows(start, stop), batch_size=batch_size))
            yield from (row_of(*pair) for pair in zip(found.names[start:stop], results, strict=True))
        except GraftError:
            for index in range(start, stop):  # one of them, or several, cannot be read
                try:
                    result = next(iter(model.predict(found.rows(index, index + 1))))
                    yield row_of(found.names[index], result)
                except GraftError as error:
                    unread.append((found.names[index], str(error).removeprefix(f"{found.names[index]} ")))


def row_of(name: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """What is written of one input; `confidence` is the probability of the predicted class, where there is one."""
    row = {"input": name, "prediction": result["prediction"]}
    if probabilities := result.get("probabilities"):
        if isinstance(result["prediction"], str):
            row["confidence"] = probabilities[result["prediction"]]
        row["probabilities"] = probabilities
    return row


def write_to(output: str | None, rows: Sequence[Mapping[str, Any]], classes: Sequence[str] | None) -> None:
    """Write all rows to standard output, or to a file that appears whole or not at all."""
    if output is None:
        write_csv(sys.stdout, rows, classes)
        return
    file = user_path(output)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(file) as whole:
            if file.suffix == ".parquet":
                write_parquet(whole, rows, classes)
            else:
                text = io.TextIOWrapper(whole, encoding="utf-8", newline="", write_through=True)
                (write_csv if file.suffix == ".csv" else write_lines)(text, rows, classes)
                text.detach()  # else it would close the file
    except OSError as error:
        raise GraftError(f"output={output} cannot be written: {error}.") from None


def flat(rows: Iterable[Mapping[str, Any]], classes: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    """Rows with a column `p(<class>)` for each class, and several labels as one text."""
    for row in rows:
        probabilities = row.get("probabilities", {})
        label = row["prediction"]
        plain = {**row, "prediction": "|".join(label) if isinstance(label, tuple) else label}
        plain.pop("probabilities", None)
        yield plain | {f"p({name})": probabilities[name] for name in classes or ()}


def write_csv(stream: TextIO, rows: Sequence[Mapping[str, Any]], classes: Sequence[str] | None) -> None:
    """Rows under a header."""
    columns = ["input", "prediction", *(["confidence"] if rows and "confidence" in rows[0] else [])]
    writer = csv.DictWriter(stream, [*columns, *(f"p({name})" for name in classes or ())], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat(rows, classes))


def write_lines(stream: TextIO, rows: Sequence[Mapping[str, Any]], classes: Sequence[str] | None) -> None:
    """A JSON object in each line."""
    stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_parquet(file: BinaryIO, rows: Sequence[Mapping[str, Any]], classes: Sequence[str] | None) -> None:
    """The columns of the CSV."""
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(list(flat(rows, classes))), file)
