"""Predict with a run's model: `graft predict run=<folder> input=<file or folder> [output=<file>]`."""

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.cli.words import names_in
from graft.errors import GraftError, listed
from graft.files import user_path
from graft.model.writing import Explanations, Row, row_of, write_rows

if TYPE_CHECKING:
    from rich.progress import Progress

    from graft.model.files import Found
    from graft.model.model import Model

USAGE = """graft predict run=<folder> input=<what> [output=<file.csv|.jsonl|.parquet>] [--explain] [--nearest 3]
  run        a run's folder, its model folder, or a sweep's folder (its best job)
  input      a file or a folder of images or recordings; a CSV, TSV, Parquet or JSONL file of rows, texts or files;
             a text file, or - for standard input: a text in each line; an .npz of images; an .npz or .npy of sequences;
             of several modalities a table with paths, or a folder where files of one name are one sample
  output     where predictions go; without it as CSV to standard output
  column     of a table that holds texts (text) or paths of files (path); of an .npz its array of images (images)
  batch_size inputs that are predicted at a time (256)
  allow      [packages] whose code the model may run: only if you trust it
  --explain  what each prediction rests on: pictures beside the output, or weights of tokens or columns
  --nearest  this many of the training samples nearest to each input, where the run has save.neighbours=true"""
KEYS = ("run", "input", "output", "column", "batch_size", "allow")
EXPLAIN, NEAREST = "--explain", "--nearest"
WRITERS = (".csv", ".jsonl", ".parquet")
UNREAD_SHOWN = 20
BATCH_SIZE = 256


def main(arguments: list[str]) -> int:
    """Write a prediction for each input; what cannot be read is counted and named. Exit code 1 if nothing could be."""
    settings = settings_of(arguments)
    if settings is None:
        print(USAGE, file=sys.stderr)
        return 2
    output = user_path(settings["output"]) if settings.get("output") else None
    if output and output.suffix not in WRITERS:
        raise GraftError(f"output={output}: predictions are written as {', '.join(WRITERS)}.")
    batch_size = number_of("batch_size", settings.get("batch_size", str(BATCH_SIZE)), "inputs")
    options: dict[str, Any] = {
        "explain": EXPLAIN in settings,
        "nearest": number_of(NEAREST, settings[NEAREST], "training samples") if NEAREST in settings else 0,
    }

    from graft import load_run  # torch
    from graft.model.files import PATHS, found_in
    from graft.model.model import columns_of

    allow = names_in(settings.get("allow", ""))
    model = load_run(settings["run"], allow=allow)
    model.check_can(**options)
    modality = model.description.modality
    if options["explain"] and not {*model.modalities} <= {"text", "table"} and output is None:
        raise GraftError(f"{EXPLAIN} writes pictures beside the output: give output=<file.csv>.")
    column = settings.get("column", "text" if modality == "text" else PATHS)
    columns = columns_of(model.backbone.input_spec)
    found = found_in(settings["input"], modality, dict(model.description.reading), column, columns)
    unread = [*found.unread]
    with progress(output) as bar:
        rows = predicted(model, found, batch_size, unread, options, Explanations(output), bar)
        try:
            count = write_rows(output, rows)
        except OSError as error:
            raise GraftError(f"output={output} cannot be written: {error}.") from None
    report(found, count, unread, output)
    return 0 if count else 1


def settings_of(arguments: Sequence[str]) -> dict[str, str] | None:
    """The keys and flags of the command line, None where run or input is missing. GraftError for an unknown one."""
    settings, words = {}, iter(arguments)
    for word in words:
        key, sign, value = word.partition("=")
        if word == NEAREST:
            value = next(words, "")
        elif word != EXPLAIN and not (sign and key in (*KEYS, NEAREST)):
            raise GraftError(
                f"graft predict: {word!r} is none of its keys: {', '.join((*KEYS, EXPLAIN, NEAREST))}.\n{USAGE}"
            )
        settings[key] = value
    return settings if {"run", "input"} <= settings.keys() else None


def number_of(key: str, value: str, what: str) -> int:
    """A number from 1. Raises GraftError for anything else."""
    if not value.isdecimal() or int(value) < 1:
        raise GraftError(f"{key}={value}: a number of {what} from 1.")
    return int(value)


@contextmanager
def progress(output: Path | None) -> "Iterator[Progress]":
    """A bar on standard error, where somebody sees it and the predictions are not printed there too."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    seen = sys.stderr.isatty() and not (output is None and sys.stdout.isatty())
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, disable=not seen) as bar:
        yield bar


def predicted(
    model: "Model",
    found: "Found",
    batch_size: int,
    unread: list[tuple[str, str]],
    options: Mapping[str, Any],
    explanations: Explanations,
    bar: "Progress",
) -> Iterator[list[Row]]:
    """Rows of the inputs that can be read, batch by batch; `unread` takes the others with their reasons."""
    task = bar.add_task("", total=len(found))
    for start in range(0, len(found), batch_size):
        stop = min(start + batch_size, len(found))
        results = readable(model, found, start, stop, unread, options)
        yield [row_of(name, one, explanations.row(name, one.pop("explanation", None))) for name, one in results]
        bar.update(task, completed=stop)


def readable(
    model: "Model", found: "Found", start: int, stop: int, unread: list[tuple[str, str]], options: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and results of the inputs from `start` to `stop`; a range with one that cannot be read is halved."""
    try:
        results = model.predict(found.rows(start, stop), batch_size=stop - start, **options)
    except GraftError as error:
        if stop - start == 1:
            unread.append((found.names[start], str(error).removeprefix(f"{found.names[start]} ")))
            return
        middle = (start + stop) // 2
        yield from readable(model, found, start, middle, unread, options)
        yield from readable(model, found, middle, stop, unread, options)
        return
    yield from zip(found.names[start:stop], results, strict=True)


def report(found: "Found", count: int, unread: Sequence[tuple[str, str]], output: Path | None) -> None:
    """Print what was predicted and what was not; beside an output a table of all that could not be read."""
    if found.unknown:
        print(f"Columns that the model does not know: {listed(found.unknown, UNREAD_SHOWN)}", file=sys.stderr)
    for name, problem in unread[:UNREAD_SHOWN]:
        print(f"Not read: {name}: {problem}", file=sys.stderr)
    summary = [f"{count:,} predicted"]
    summary += [f"{number:,} left out ({reason})" for reason, number in found.left_out.items()]
    if unread:
        listing = output and output.with_name(f"{output.stem}_unread.csv")
        summary.append(f"{len(unread):,} could not be read" + (f" ({listing})" if listing else ""))
        if listing:
            listing.parent.mkdir(parents=True, exist_ok=True)
            with listing.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([("input", "problem"), *unread])
    print(", ".join(summary) + (f": {output}" if output and count else ""), file=sys.stderr)
