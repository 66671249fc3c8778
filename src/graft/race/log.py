"""`race.json`: every job of a race with what it found and took, every decision with its evidence, and the winner."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from graft.errors import GraftError
from graft.files import write_whole
from graft.race.decisions import Decision, Measured, Outcome, close_calls
from graft.runs.folder import RACE

FORMAT = 2
SHOWN_FORMATS = (1, FORMAT)  # whose decisions read alike; jobs of the first are read from their folders again
SHOWN = 5  # candidates in a line


class RaceLog:
    """The log of a race's folder. Jobs that it knows are not run again, so that the same command goes on.

    What failed is tried again then, as in any sweep.
    """

    def __init__(self, folder: Path, common: Sequence[str] = ()) -> None:
        """Begin one, or go on with what is there; GraftError for one that cannot be read.

        `common` are overrides of all jobs.
        """
        self.folder = folder
        self.common = common
        before = read(folder) or {}
        jobs = before["jobs"] if before.get("format") == FORMAT else {}
        self.jobs = {key: Outcome(**one) for key, one in jobs.items()}
        self.rungs: list[dict[str, Any]] = []
        self.settings: dict[str, Any] = {}
        self.result: dict[str, Any] | None = None

    @property
    def spent_s(self) -> float:
        """CPU seconds of all jobs so far."""
        return sum(one.cpu_s for one in self.jobs.values())

    def outcome(self, overrides: Sequence[str]) -> Outcome | None:
        """What the job of these overrides found; None where it has not run."""
        return self.jobs.get(self.key_of(overrides))

    def add(self, overrides: Sequence[str], outcome: Outcome) -> None:
        """Put down a job."""
        self.jobs[self.key_of(overrides)] = outcome

    def add_rung(self, values: Mapping[str, Any], decision: Decision, untried: Sequence[str] = ()) -> str:
        """Put down a rung's decision; the line that is printed of it."""
        self.rungs.append(
            {
                **values,
                "why": decision.why,
                "close_calls": close_calls(decision),
                "spent_s": round(self.spent_s, 3),
                "went_on": [entry(one) for one in decision.went_on],
                "dropped": [entry(one) for one in decision.dropped],
                "untried": list(untried),
            }
        )
        self.write()
        return line_of(self.rungs[-1])

    def key_of(self, overrides: Sequence[str]) -> str:
        """A job's place in the log."""
        return " ".join(sorted([*self.common, *overrides]))

    def write(self) -> None:
        """Write all so far."""
        content = {
            "format": FORMAT,
            "settings": self.settings,
            "spent_s": round(self.spent_s, 3),
            "rungs": self.rungs,
            "result": self.result,
            "jobs": {key: asdict(one) for key, one in self.jobs.items() if one.value is not None},
        }
        write_whole(self.folder / RACE, json.dumps(content, indent=1) + "\n")


def entry(one: Measured) -> dict[str, Any]:
    """A candidate in a rung."""
    return {
        "candidate": one.candidate.label,
        "value": one.value,
        "error": one.error,
        "metric": one.outcomes[0].metric if one.outcomes else "",
        "cpu_s": round(one.cpu_s, 3),
        "seeds": len(one.outcomes),
        "folders": [outcome.folder for outcome in one.outcomes],
        "failure": one.failure,
    }


def read(folder: Path) -> dict[str, Any] | None:
    """The log of a race as it is written, None where the folder has none; GraftError for one that cannot be read."""
    file = folder / RACE
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text())
        if not isinstance(content, dict) or content.get("format") not in SHOWN_FORMATS:
            raise ValueError("it is no race's log of this Graft")
    except (OSError, ValueError) as error:
        raise GraftError(f"{file} cannot be read: {error}. Delete it: finished jobs are not run again.") from None
    return content


def lines(content: Mapping[str, Any]) -> list[str]:
    """A race in a line a rung, and one for its result."""
    found = [line_of(one) for one in content["rungs"]]
    if content["result"]:
        found.append(result_line(content["result"]))
    return found


def line_of(rung: Mapping[str, Any]) -> str:
    """A rung's decision: who went on and who was dropped, by what score and its standard error, and what it cost."""
    length = f"{rung['epochs']} epoch{'s' * (rung['epochs'] != 1)}" + (
        f", {rung['seeds']} seeds" if rung["seeds"] > 1 else ""
    )
    cost = f"{rung['cpu_s']:.0f} s of CPU, {rung['spent_s']:.0f} s so far"
    on, dropped = rung["went_on"], rung["dropped"]
    text = f"race, {rung['name']} ({length}; {rung['how']}; {cost}): {rung['why']}. On: {named(on)}."
    if dropped:
        text += f" Dropped: {named(dropped)}."
    if rung["close_calls"]:
        text += f" {rung['close_calls']} of these within one standard error of the best."
    if rung["untried"]:
        text += f" Not tried, the budget is spent: {', '.join(rung['untried'][:SHOWN])}{more(rung['untried'])}."
    return text


def named(entries: Sequence[Mapping[str, Any]]) -> str:
    """Candidates with their scores, the first few of them."""
    return "; ".join(f"{one['candidate']} {score(one)}" for one in entries[:SHOWN]) + more(entries)


def more(entries: Sequence[Any]) -> str:
    """How many there are beyond those that are shown."""
    return f" and {len(entries) - SHOWN} more" if len(entries) > SHOWN else ""


def score(one: Mapping[str, Any]) -> str:
    """A candidate's score with its standard error, or why it has none."""
    if one["value"] is None:
        return f"failed ({one['failure']})"
    return f"{one['value']:.4f}" + ("" if one["error"] is None else f" ± {one['error']:.4f}")


def result_line(result: Mapping[str, Any]) -> str:
    """The winner and what finding it took."""
    part = f", about {100 * result['share']:.0f} % of the whole sweep's" if result["share"] is not None else ""
    return (
        f"race, winner of {result['candidates']} candidates: {result['candidate']} {score(result)}; "
        f"{result['jobs']} jobs, {result['cpu_s']:.0f} s of CPU{part}; {', '.join(result['folders'])}"
    )
