"""A run's ledger, `ledger.json`: what every selection rule says of every candidate checkpoint.

No rule reads it: it holds test scores, which are there to tell afterwards what a choice cost.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, cast

from graft.errors import GraftError
from graft.files import write_whole
from graft.runs.folder import LEDGER
from graft.runs.record import finite

FORMAT = 1


class Scored(TypedDict):
    """A candidate checkpoint; a score is None where it is no number. What `oracle` holds used the target's labels."""

    epoch: int  # from 0
    step: int
    scores: dict[str, float | None]  # by rule
    estimates: dict[str, float | None]  # of the target's accuracy, without its labels
    oracle: dict[str, float | None]  # the metric on the target's validation (val) and test split (test)


class Ledger(TypedDict):
    """What `ledger.json` holds."""

    format: int
    terms: list[str]  # that the run trained with
    rule: str  # which one the config named beforehand
    directions: dict[str, bool]  # by rule, whether a higher score is better
    left_out: dict[str, str]  # by rule, why it has no scores
    metric: str
    higher_is_better: bool
    candidates: list[Scored]
    seconds: float  # that the ledger took


def write(ledger: Ledger, folder: Path) -> None:
    """Write a run's ledger."""
    write_whole(folder / LEDGER, json.dumps(finite(ledger), indent=1) + "\n")


def read(folder: Path) -> Ledger | None:
    """A run's ledger, None without one. Raises GraftError for one that cannot be read or of a newer Graft."""
    file = folder / LEDGER
    try:
        content = json.loads(file.read_text())
        if not isinstance(content, Mapping) or not Ledger.__annotations__.keys() <= content.keys():
            raise ValueError("it is no ledger of a run")
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, and this Graft reads {FORMAT}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise GraftError(f"{file} cannot be read: {error}. Delete the folder and run the job again.") from None
    return cast(Ledger, content)


def candidate_epochs(epochs: int, every: int, number: int) -> Sequence[int]:
    """At most `number` evenly spaced epochs, from 0, of those that are validated, one in `every`; the last is one."""
    validated = range(min(every, epochs) - 1, epochs, min(every, epochs))
    number = min(number, len(validated))
    return [validated[-(-len(validated) * place // number) - 1] for place in range(1, number + 1)]
