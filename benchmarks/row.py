"""A row of the table: what is compared, which bar it has to meet, and how it is measured."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from benchmarks.measure import Cost, Summary, ratios, seconds, summarise

Choice = TypeVar("Choice")
THREADS = 2  # of every contestant: what the bars were set for


@dataclass(frozen=True)
class Bar:
    """The target of a figure, such as `<= 1.10`."""

    sign: str
    target: float

    def met(self, value: float) -> bool:
        """Whether a figure meets it."""
        return value <= self.target if self.sign == "<=" else value >= self.target

    def __str__(self) -> str:
        return f"{self.sign} {self.target:.2f}"


@dataclass(frozen=True)
class Settings:
    """How much to measure; `folder` is a row's own, empty at its start and removed after it."""

    folder: Path
    repeats: int
    quick: bool = False
    threads: int = THREADS

    def pick(self, full: Choice, quick: Choice) -> Choice:
        """The size of something: `quick` where only the harness is tried out and the figures mean nothing."""
        return quick if self.quick else full


@dataclass
class Measured:
    """What a row's measuring found."""

    values: list[float]  # the figure that has the bar, one a repeat
    beside: dict[str, list[float]] = field(default_factory=dict)  # more figures of the same unit, without a bar
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)  # for the JSON file and the pictures


def compared(costs: Mapping[str, Sequence[Cost]], notes: Sequence[str] = ()) -> Measured:
    """The first of two works over the second, in wall time, and beside it in CPU time, which a busy machine has too."""
    ours, other = costs.values()
    values = ratios([one.seconds for one in ours], [one.seconds for one in other])
    beside = {"the same in CPU seconds": ratios([one.cpu_s for one in ours], [one.cpu_s for one in other])}
    details = {name: [vars(one) for one in taken] for name, taken in costs.items()}
    return Measured(values, beside, [*notes], {"costs": details})


@dataclass(frozen=True)
class Row:
    """One line of the acceptance table."""

    name: str
    ours: str
    other: str  # empty where the figure is no ratio
    bar: Bar | None  # None where a figure is reported and has nothing to meet
    measure: Callable[[Settings], Measured]
    repeats: int = 5
    unit: str = ""
    missing: Callable[[], str] = lambda: ""  # why it cannot run here; empty where it can

    @property
    def compared(self) -> str:
        """What the figure is, in words."""
        return f"{self.ours} over {self.other}" if self.other else self.ours


@dataclass
class Outcome:
    """What became of a row: measured, skipped with a reason, or failed with an error."""

    row: Row
    status: str
    measured: Measured | None = None
    reason: str = ""
    seconds: float = 0.0

    @property
    def summary(self) -> Summary | None:
        """Of the values that have the bar."""
        return summarise(self.measured.values) if self.measured else None

    @property
    def met(self) -> bool | None:
        """Whether the median meets the bar; None without either."""
        return self.row.bar.met(self.summary.median) if self.summary and self.row.bar else None


def run_row(row: Row, repeats: int | None, quick: bool, threads: int = THREADS) -> Outcome:
    """Measure a row in a folder of its own; an error becomes its outcome and does not end the other rows."""
    if reason := row.missing():
        return Outcome(row, "skipped", reason=reason)
    outcome = Outcome(row, "measured")

    def measure() -> None:
        with TemporaryDirectory(prefix="graft_bench_", ignore_cleanup_errors=True) as folder:
            rounds = repeats or (2 if quick else row.repeats)
            # One thread disturbs whoever else works here less, and to try the harness out it is as good as two.
            settings = Settings(Path(folder), rounds, quick, threads=1 if quick else threads)
            outcome.measured = row.measure(settings)

    try:
        outcome.seconds = seconds(measure)
    except Exception as error:
        outcome.status, outcome.measured = "failed", None
        outcome.reason = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    return outcome
