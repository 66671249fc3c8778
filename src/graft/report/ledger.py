"""What every selection rule would have picked in finished sweeps, and what that costs against the oracle."""

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from graft.report.export import Table
from graft.report.statistics import over_units
from graft.report.summary import UNBOUNDED
from graft.runs import ledger
from graft.runs.folder import CONFIG
from graft.runs.ledger import Ledger, Scored
from graft.runs.roles import REPEATS, role
from graft.runs.sweeps import Job, read_job, read_jobs, test_over_rest

LAST, RANDOM, ORACLE = "last", "random", "oracle"
SOURCE_ONLY = "source_only"
One = TypeVar("One")
REGRET = (
    "Test score of the oracle's pick minus that of the rule's, in {unit}: mean over {repeats} ± half its 95 % interval "
    "(Student's t over the paired differences). The oracle picks by labels of the target's validation split, so that a "
    "regret may be negative. (named): by the configs, beforehand. last: the mean over the hyperparameters, among which "
    "it does not choose; random: the mean over all candidates."
)
PICKS = "Of equal scores the first is picked. Behind the oracle's pick is its test score."
SCORES = (
    "Of what the named rule picks: mean over seeds ± half its 95 % interval. estimated: accuracy without labels "
    "(average thresholded confidence, by negative entropy); over {other}: paired difference; random: the mean over all "
    "candidates. The oracle column used the target's labels."
)


@dataclass(frozen=True)
class Candidate:
    """A checkpoint of a job."""

    settings: str  # values of the hyperparameters that vary
    scored: Scored
    is_last: bool  # of its job

    @property
    def test(self) -> float:
        """The target's test score."""
        value = self.scored["oracle"]["test"]
        return math.nan if value is None else value


@dataclass
class Cell:
    """The candidates of one method, direction and seed."""

    direction: str
    method: str
    repeat: tuple[object, object]  # split seed and seed
    ledger: Ledger  # of its first job: what all of them share
    overlap: float  # see graft.report.statistics.over_units
    candidates: list[Candidate] = field(default_factory=list)

    def pick(self, rule: str) -> Candidate | None:
        """The best candidate by a rule, the first one of several; None where it has no score of any."""
        if rule == ORACLE:
            return self._best(lambda one: one["oracle"]["val"], self.ledger["higher_is_better"])
        if rule not in self.ledger["directions"] or rule == LAST:
            return None
        return self._best(lambda one: one["scores"].get(rule), self.ledger["directions"][rule])

    def _best(self, of: Callable[[Scored], float | None], higher: bool) -> Candidate | None:
        known = [(value, one) for one in self.candidates if (value := of(one.scored)) is not None]
        best = max(known, key=lambda pair: pair[0] if higher else -pair[0], default=None)
        return None if best is None else best[1]

    def test(self, rule: str) -> float | None:
        """The test score of what a rule picks; of what chooses nothing the expected one."""
        if rule in (LAST, RANDOM):
            return statistics.fmean(one.test for one in self.candidates if one.is_last or rule == RANDOM)
        pick = self.pick(rule)
        return None if pick is None else pick.test

    def regret(self, rule: str) -> float | None:
        """How much better the oracle's pick tests."""
        best, own = self.test(ORACLE), self.test(rule)
        if best is None or own is None:
            return None
        return best - own if self.ledger["higher_is_better"] else own - best


@dataclass(frozen=True)
class Found:
    """The cells of some folders, and what was left out."""

    cells: list[Cell]
    varied: list[str]  # keys of the hyperparameters
    without: int  # finished jobs that kept no ledger
    unfinished: int

    @property
    def named(self) -> list[str]:
        """The rules that the configs name."""
        return list(dict.fromkeys(cell.ledger["rule"] for cell in self.cells))

    @property
    def rules(self) -> list[str]:
        """Those with scores, the named ones first, then what chooses nothing."""
        scored = dict.fromkeys(rule for cell in self.cells for rule in cell.ledger["directions"])
        named = [rule for rule in self.named if rule in scored]
        return [*named, *(rule for rule in scored if rule not in (*named, LAST)), *({LAST} - {*named}), RANDOM]

    @property
    def scale(self) -> float:
        """What scores are shown in: percentage points of a fraction."""
        return 1.0 if self.cells[0].ledger["metric"] in UNBOUNDED else 100.0

    def title(self, rule: str) -> str:
        """A rule as tables name it."""
        if rule == ORACLE:
            return "oracle: target labels"
        return f"{rule} (named)" if rule in self.named else rule


# Reading


def read(folders: Sequence[Path]) -> Found:
    """The cells of runs and sweeps; of jobs with the same overrides the last one counts. Raises GraftError."""
    jobs = [
        job for folder in folders for job in ([read_job(folder)] if (folder / CONFIG).is_file() else read_jobs(folder))
    ]
    jobs = list({tuple(sorted(job.overrides.items())): job for job in jobs}.values())
    finished = [job for job in jobs if job.results and "score" in job.results]
    found = [(job, kept) for job in finished if (kept := ledger.read(job.path)) is not None and kept["candidates"]]
    values = {key: {job.overrides.get(key) for job, _ in found} for job, _ in found for key in job.overrides}
    varied = [key for key, seen in values.items() if len(seen) > 1 and key not in (*REPEATS, "term")]
    settings = [key for key in varied if role(key) == "setting"]
    methods = by(found, lambda one: method_of(one[1])).values()  # what only tells methods apart was not tuned
    tuned = [
        key
        for key in varied
        if key not in settings and any(len({job.overrides.get(key) for job, _ in own}) > 1 for own in methods)
    ]
    seen = {(domains_of(job), settings_of(job, settings)) for job, _ in found}
    ambiguous = [names for names, count in Counter(names for names, _ in seen).items() if count > 1]
    cells: dict[tuple[object, ...], Cell] = {}
    for job, kept in found:
        cell = cell_of(job, kept, settings if domains_of(job) in ambiguous else [])
        cell = cells.setdefault((cell.direction, cell.method, cell.repeat), cell)
        tried = " ".join(job.overrides.get(key, "") for key in tuned)
        last = max(one["epoch"] for one in kept["candidates"])
        cell.candidates += [Candidate(tried, one, one["epoch"] == last) for one in kept["candidates"]]
    ordered = sorted(
        cells.values(), key=lambda one: (one.direction, one.method != SOURCE_ONLY, one.method, str(one.repeat))
    )
    return Found(ordered, tuned, len(finished) - len(found), len(jobs) - len(finished))


def cell_of(job: Job, kept: Ledger, settings: Sequence[str]) -> Cell:
    """The empty cell that a job's candidates belong to; `settings` are keys that tell it from others of its domains."""
    results = job.results or {}
    data, seeds = results["data"], results.get("seeds", {})
    direction = domains_of(job) + settings_of(job, settings)
    alone = "no term" if data["target"].get("trained_on") else SOURCE_ONLY
    repeat = (seeds.get("split"), seeds.get("train"))
    return Cell(direction, method_of(kept) or alone, repeat, kept, test_over_rest(results))


def method_of(kept: Ledger) -> str:
    """A job's terms."""
    return "+".join(kept["terms"])


def domains_of(job: Job) -> str:
    """From which domain to which, by their names."""
    data = (job.results or {})["data"]
    return " -> ".join(str(data[side]["name"]) for side in ("source", "target") if side in data)


def settings_of(job: Job, keys: Sequence[str]) -> str:
    """What a job has at some keys of data and backbone."""
    return "".join(f" {key}={job.overrides[key]}" for key in keys if key in job.overrides)


# Tables


def tables(found: Found) -> list[Table]:
    """What is picked for every seed, regrets by direction, and scores."""
    directions = by(found.cells, lambda cell: cell.direction)
    made = [picks(found, direction, cells) for direction, cells in directions.items()]
    made += [regrets(found, direction, by(cells, lambda cell: cell.method)) for direction, cells in directions.items()]
    if len(directions) > 1:
        made.append(regrets(found, "all directions", directions))
    return [*made, scores(found, directions)]


def by(things: Iterable[One], name: Callable[[One], str]) -> dict[str, list[One]]:
    """Cells or jobs by what they have in common, in their order."""
    found: dict[str, list[One]] = {}
    for one in things:
        found.setdefault(name(one), []).append(one)
    return found


def over_repeats(cells: Sequence[Cell], of: Callable[[Cell], float | None], scale: float) -> str:
    """Mean and half interval over seeds, or over splits where those vary, of what cells of a seed have on average."""
    splits = {cell.repeat[0] for cell in cells}
    found: dict[object, list[float]] = {}
    for cell in cells:
        if (value := of(cell)) is not None:
            found.setdefault(cell.repeat[0] if len(splits) > 1 else cell.repeat, []).append(value * scale)
    if not found:
        return ""
    estimate = over_units([statistics.fmean(values) for values in found.values()], cells[0].overlap * (len(splits) > 1))
    half = f" ± {estimate.interval()[1] - estimate.mean:.1f}" if estimate.has_interval else ""
    return f"{estimate.mean:.1f}{half}"


def regrets(found: Found, title: str, columns: Mapping[str, Sequence[Cell]]) -> Table:
    """Rows are rules, the named ones first; the last column is the mean over the others."""
    means = dict(columns)
    if len(columns) > 1:
        means["mean"] = [cell for cells in columns.values() for cell in cells]
    rows = [
        [
            found.title(rule),
            *(over_repeats(cells, partial(Cell.regret, rule=rule), found.scale) for cells in means.values()),
        ]
        for rule in found.rules
    ]
    unit = "points" if found.scale > 1 else found.cells[0].ledger["metric"]
    repeats = "splits" if len({cell.repeat[0] for cell in found.cells}) > 1 else "seeds"
    return Table("regret", f"Regret, {title}", REGRET.format(unit=unit, repeats=repeats), ["rule", *means], rows)


def scores(found: Found, directions: Mapping[str, Sequence[Cell]]) -> Table:
    """Rows are directions and methods; what used the target's labels stands last and says so."""
    base = {(cell.direction, cell.repeat): own_test(cell) for cell in found.cells if cell.method == SOURCE_ONLY}

    def gain(cell: Cell) -> float | None:
        own, other = own_test(cell), base.get((cell.direction, cell.repeat))
        return None if cell.method == SOURCE_ONLY or own is None or other is None else own - other

    columns: list[Callable[[Cell], float | None]] = [own_test, estimated, gain]
    columns += [partial(Cell.test, rule=RANDOM), partial(Cell.test, rule=ORACLE)]
    rows = [
        [
            *(direction, method, str(len(cells))),
            " to ".join(map(str, sorted({len(cell.candidates) for cell in cells}))),
            *(over_repeats(cells, column, found.scale) for column in columns),
        ]
        for direction, of_direction in directions.items()
        for method, cells in by(of_direction, lambda cell: cell.method).items()
    ]
    metric = found.cells[0].ledger["metric"]
    header = ["direction", "method", "n", "candidates", f"test {metric}", "estimated", f"over {SOURCE_ONLY}"]
    header += ["random", f"oracle: test {metric}"]
    return Table("scores", "Scores", SCORES.format(other=SOURCE_ONLY), header, rows, numbers=2).without_empty()


def own_test(cell: Cell) -> float | None:
    """The test score of what the named rule picks."""
    return cell.test(cell.ledger["rule"])


def estimated(cell: Cell) -> float | None:
    """Accuracy without labels of what the named rule picks."""
    pick = cell.pick(cell.ledger["rule"])
    return None if pick is None else pick.scored["estimates"].get("negative_entropy")


def picks(found: Found, direction: str, cells: Sequence[Cell]) -> Table:
    """Rows are methods and rules, columns seeds; the oracle's is the last row of a method."""
    seeds = by(cells, repeat_text)
    rows = []
    for method, own in by(cells, lambda cell: cell.method).items():
        there = by(own, repeat_text)
        for rule in [*(rule for rule in found.rules if rule not in (LAST, RANDOM)), ORACLE]:
            texts = [pick_text(there[seed][0], rule, found.scale) if seed in there else "" for seed in seeds]
            rows.append([method, found.title(rule), *texts])
    what = " ".join(found.varied)
    title = f"Picks, {direction} ({what} @ epoch, regret)" if what else f"Picks, {direction} (epoch, regret)"
    return Table("picks", title, PICKS, ["method", "rule", *(f"seed {seed}" for seed in seeds)], rows, numbers=2)


def pick_text(cell: Cell, rule: str, scale: float) -> str:
    """What a rule picks, and its regret; of the oracle the test score."""
    pick, value = cell.pick(rule), cell.test(rule) if rule == ORACLE else cell.regret(rule)
    if pick is None or value is None:
        return ""
    return f"{pick.settings} @ {pick.scored['epoch'] + 1}, {value * scale:.1f}".removeprefix(" @ ")


def repeat_text(cell: Cell) -> str:
    """Seed, and split seed where it is not 0."""
    split, seed = cell.repeat
    return f"{seed}, split {split}" if split else f"{seed}"


def every_pick(found: Found) -> Table:
    """A row for every rule in every cell, with all digits, for further use."""
    header = [
        "direction",
        "method",
        "split_seed",
        "seed",
        "rule",
        "named",
        "uses_target_labels",
        "hyperparameters",
        "epoch",
    ]
    header += ["score", "test", "regret", "atc_max_confidence", "atc_negative_entropy"]
    rows = []
    for cell, rule in itertools.product(found.cells, [*found.rules, ORACLE]):
        pick = cell.pick(rule)
        scored: Mapping[str, object] = (
            {} if pick is None else pick.scored["scores"] | {ORACLE: pick.scored["oracle"]["val"]}
        )
        estimates = {} if pick is None else pick.scored["estimates"]
        values = [
            *(cell.direction, cell.method, *cell.repeat, rule, rule in found.named, rule == ORACLE),
            *(("", "") if pick is None else (pick.settings, pick.scored["epoch"])),
            *(scored.get(rule), cell.test(rule), cell.regret(rule)),
            *(estimates.get(name) for name in ("max_confidence", "negative_entropy")),
        ]
        rows.append(["" if value is None else str(value) for value in values])
    return Table("ledger", "", "", header, rows)
