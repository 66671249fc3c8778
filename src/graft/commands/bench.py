"""Measure what runs and exported files cost to predict with: `graft bench run=<folder or file> ...`."""

import sys
from collections.abc import Sequence

from graft.cli.words import names_in, pairs
from graft.errors import GraftError
from graft.files import user_path, write_whole

USAGE = """graft bench run=<folder or file> [run=<another> ...] [to=<folder>] [rounds=20] [allow=[packages]]
  run        a run's folder, or a file of graft export (.onnx, .pt2); several are measured in turns
  to         a folder for the table (bench.md, bench.csv) and the picture of the Pareto front (bench.svg)
  rounds     of measurement, in each of which every network answers to 5 samples alone and to a batch of 32
  allow      [packages] whose code a model may run: only if you trust it"""
KEYS = ("run", "to", "rounds", "allow")
ROUNDS = 20


def main(arguments: list[str]) -> int:
    """Print the table, and write it with its picture where a folder is named."""
    places, settings = settings_of(arguments)
    if not places:
        print(USAGE, file=sys.stderr)
        return 2
    rounds = settings.get("rounds", str(ROUNDS))
    if not rounds.isdigit() or rounds == "0":
        raise GraftError(f"rounds={rounds}: a number of rounds from 1.")

    from tqdm import tqdm

    from graft.bench.measure import all_cores, measure
    from graft.bench.subjects import subjects_of
    from graft.bench.table import picture, table

    subjects = subjects_of(places)
    allow = names_in(settings.get("allow", ""))
    total = int(rounds) * len({1, all_cores()})
    with tqdm(total=total, unit="round", disable=not sys.stderr.isatty()) as bar:
        costs = measure([one.place for one in subjects], int(rounds), allow, bar.update)
    rows = list(zip(subjects, costs, strict=True))
    found = table(rows)
    print(found.as_markdown())
    print(found.caption)
    if "to" in settings:
        folder = user_path(settings["to"])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / "bench.md", f"{found.as_markdown()}\n{found.caption}\n")
            write_whole(folder / "bench.csv", found.as_csv())
            if any(subject.score for subject in subjects):
                picture(rows, folder / "bench.svg")
        except OSError as error:
            raise GraftError(f"to={folder} cannot be written: {error}.") from None
        print(folder)
    return 0


def settings_of(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The places of all `run=`, and the other keys. Raises GraftError for an unknown one."""
    places, settings = [], {}
    for key, value in pairs("bench", arguments, KEYS, USAGE):
        if key == "run":
            places.append(value)
        else:
            settings[key] = value
    return places, settings
