"""Outcomes as a Markdown table and as JSON."""

from collections.abc import Sequence
from typing import Any

from benchmarks.measure import Summary, summarise
from benchmarks.row import Outcome

HEADER = ("row", "compared", "median", "95 % interval", "range", "n", "bar", "met")
DASH = "-"
LAST_LINES = 3  # of an error


def render(outcomes: Sequence[Outcome]) -> str:
    """The table, each row followed by what was measured beside it, and the notes below."""
    lines = [HEADER, ("---",) * len(HEADER)]
    for outcome in outcomes:
        lines += cells(outcome)
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    notes = [f"{outcome.row.name}: {note}" for outcome in outcomes for note in remarks(outcome)]
    return "\n".join([*text, *([""] if notes else []), *notes])


def cells(outcome: Outcome) -> list[tuple[str, ...]]:
    """A row's lines of the table."""
    row = outcome.row
    first, bar = (row.name, row.compared), f"{row.bar}{unit(row.unit)}" if row.bar else DASH
    if outcome.measured is None:
        return [(*first, *(DASH,) * 4, bar, outcome.status)]
    met = {True: "yes", False: "NO", None: ""}[outcome.met]
    lines = [(*first, *figures(outcome.summary, row.unit), bar, met)]
    for name, values in outcome.measured.beside.items():
        lines.append(("", name, *figures(summarise(values), row.unit), "", ""))
    return lines


def remarks(outcome: Outcome) -> list[str]:
    """A row's notes, or why there is nothing to note: of a long error its end."""
    if outcome.measured:
        return outcome.measured.notes
    return [f"{outcome.status}: " + " ".join(outcome.reason.strip().splitlines()[-LAST_LINES:])]


def figures(summary: Summary, unit_: str) -> tuple[str, str, str, str]:
    """Median, interval, range and number of values."""
    interval = f"{summary.interval[0]:.3f} to {summary.interval[1]:.3f}" if summary.interval else DASH
    return (
        f"{summary.median:.3f}{unit(unit_)}",
        interval,
        f"{summary.minimum:.3f} to {summary.maximum:.3f}",
        str(summary.count),
    )


def unit(word: str) -> str:
    """A unit as it stands behind a number."""
    return f" {word}" if word else ""


def as_json(outcomes: Sequence[Outcome], machine: dict[str, Any], quick: bool) -> dict[str, Any]:
    """Everything that was measured, every single value included."""
    return {"machine": machine, "quick": quick, "rows": [outcome_as_json(outcome) for outcome in outcomes]}


def outcome_as_json(outcome: Outcome) -> dict[str, Any]:
    """One row as plain containers."""
    row, measured, summary = outcome.row, outcome.measured, outcome.summary
    content: dict[str, Any] = {
        "name": row.name,
        "ours": row.ours,
        "other": row.other,
        "bar": str(row.bar) if row.bar else None,
        "unit": row.unit,
        "status": outcome.status,
        "reason": outcome.reason,
        "seconds": outcome.seconds,
        "met": outcome.met,
    }
    if measured and summary:
        content |= {"median": summary.median, "interval": summary.interval, "values": measured.values}
        content |= {"beside": measured.beside, "notes": measured.notes, "details": measured.details}
    return content
