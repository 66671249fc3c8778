"""What a report shows of a race: the winner, and every rung with who went on, who was dropped, and by what."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graft.race import log
from graft.report.answer import Answer
from graft.report.export import Table
from graft.report.page import Section
from graft.report.summary import number_cell

NOT_ASKED = (
    "A race chooses by validation and tests its winner alone. Whether transfer helps it does not say: compare=transfer "
    "does, with training from scratch beside it."
)


def race_of(folders: Sequence[Path]) -> Mapping[str, Any] | None:
    """The finished race of a report's only folder; None of other sweeps."""
    found = log.read(folders[0]) if len(folders) == 1 else None
    return found if found and found["result"] else None


def answer(race: Mapping[str, Any], score: Mapping[str, Any]) -> Answer:
    """The winner in a line, with its test `score`; what was tried beneath."""
    result = race["result"]
    line = f"Winner of {result['candidates']} candidates: {result['candidate']}, {score['metric']} {score['value']:.4f}"
    return Answer("missing", f"{line}.", [NOT_ASKED])


def section(race: Mapping[str, Any]) -> Section:
    """A table for each rung."""
    tables = [table_of(place, rung) for place, rung in enumerate(race["rungs"])]
    return Section("Race", tables, lines=[log.result_line(race["result"])])


def table_of(place: int, rung: Mapping[str, Any]) -> Table:
    """A line for each candidate of a rung, those that went on first."""
    entries = [("went on", one) for one in rung["went_on"]] + [("dropped", one) for one in rung["dropped"]]
    rows = [
        [
            *(one["candidate"], verdict, one["failure"], number_cell(one["value"]), number_cell(one["error"])),
            *(str(one["seeds"]), f"{one['cpu_s']:.1f} s"),
        ]
        for verdict, one in entries
    ] + [[one, "not tried: the budget was spent", *[""] * 5] for one in rung["untried"]]
    caption = (
        f"{rung['epochs']} epochs, {rung['how']}; {rung['why']}. The error is the standard error of an accuracy over "
        "validation samples, and over seeds where there are several; all candidates see the same samples."
    )
    header = ["candidate", "decision", "failure", "validation", "standard error", "seeds", "CPU"]
    return Table(f"race_{place + 1}_{rung['name']}", rung["name"], caption, header, rows, numbers=3).without_empty()
