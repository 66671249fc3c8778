"""`make calibrate`: how often a report's intervals hold the truth, and how often it says "helps" where nothing does.

Sweeps are drawn from a pool of runs whose truth is known (`calibration_pool`): some seeds, some test samples, some arms
and one of them as scratch. The report's own statistics judge each. The tables end up in logs/calibrate/tables.md.
"""

import argparse
import functools
import itertools
import math
import multiprocessing
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import special

from graft.report.contributions import OF_NUMBERS, placements
from graft.report.looks import level
from graft.report.ranks import open_places
from graft.report.statistics import CONFIDENCE, Estimate, by_group, crossed, over_seeds, over_splits
from tests.proof.calibration_folds import EVALUATIONS, cut, population
from tests.proof.calibration_pool import Pool, Size, pool

FOLDER = Path(__file__).parents[2] / "logs" / "calibrate"
REPLICATIONS = 4000
SEEDS = (3, 5, 10)
SAMPLES = (150, 500)
ARMS = (2, 4, 8, 16)  # in a sweep, scratch among them
RANKED = (4, 8)  # arms whose places are counted
GROUP = 5  # samples that belong together, such as those of a patient
FOLDED = 0.5  # of the replications, for data sets whose folds must all be trained
DIFFERENCES = (0.01, 0.02, 0.05)  # true ones that a page should see
LOOKS = (3, 5, 10)  # seeds at each look of somebody who adds some while nothing is shown
COLLAPSED = 0.05  # of the seeds, in the cells about those
COVERED = 0.93  # at least, in every cell that makes a claim
FALSE = 0.06  # at most: the upper bound of how often a page says "helps" where nothing does
SKEW = 1.0  # of the differences over seeds, above which no claim is made

Arrays = Mapping[str, np.ndarray]  # (seeds, N) of each arm
Pair = tuple[str, str]  # an arm and its scratch
Draw = np.random.Generator


@dataclass(frozen=True, eq=False)
class Metric:
    """What a pool's arms say of each test sample, and what `(n, m)` such values of some rows add to a metric."""

    name: str
    values: Arrays
    contribute: Callable[[np.ndarray, np.ndarray], np.ndarray]

    @property
    def arms(self) -> list[str]:
        """Their names."""
        return list(self.values)

    @functools.cached_property
    def everything(self) -> Arrays:
        """Contributions of all seeds and the whole population of each arm."""
        rows = np.arange(next(iter(self.values.values())).shape[1])
        return {arm: self.contribute(values, rows).astype(np.float32) for arm, values in self.values.items()}

    @functools.cache  # noqa: B019 - there are three
    def truth(self, pair: Pair) -> "Truth":
        """The true difference of two arms, and how their runs scatter around it."""
        differences = self.everything[pair[0]] - self.everything[pair[1]]
        by_seed, by_sample = differences.mean(1, dtype=float), differences.mean(0, dtype=float)
        mean, deviation = by_seed.mean(), by_seed.std()
        seeds, samples = by_seed.var(ddof=1), by_sample.var(ddof=1)
        interaction = max(float(differences.var(dtype=float)) - seeds - samples, 0.0)
        skew = float((((by_seed - mean) / deviation) ** 3).mean()) if deviation else 0.0
        return Truth(float(mean), float(seeds), float(samples), interaction, skew)

    @functools.cached_property
    def by_sample(self) -> Arrays:
        """Each arm's mean over all seeds, `(N,)`."""
        return {arm: values.mean(0, dtype=float) for arm, values in self.everything.items()}


@dataclass(frozen=True)
class Truth:
    """The true mean of a paired difference, and its variances over seeds, samples and both."""

    mean: float
    seeds: float
    samples: float
    interaction: float
    skew: float

    def width(self, n: int, m: int) -> float:
        """Of the interval of estimand B that somebody who knew the variances would give."""
        error = math.sqrt(self.seeds / n + self.samples / m + self.interaction / n / m)
        return 2 * float(special.ndtri((1 + CONFIDENCE) / 2)) * error


@dataclass(frozen=True)
class Compared:
    """One comparison of a drawn sweep."""

    pair: Pair
    a: Estimate
    b: Estimate
    truth_on_rows: float  # what estimand A should hold


def metrics_of(found: Pool, split: int = 0) -> list[Metric]:
    """Accuracy, AUROC of two classes and R2."""
    large, numbers = found.labels[0] >= 5, (found.labels[0] - 4.5) / 2.87

    def auroc(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.stack([placements(one.astype(np.float32), large[rows]) for one in values])

    def r2(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.stack([OF_NUMBERS["r2"](numbers[rows], one.astype(float)) for one in values])

    accuracy = {arm: values[split] for arm, values in found.correct.items()}
    return [
        Metric("acc", accuracy, lambda values, rows: values.astype(np.float32)),
        Metric("auroc", found.scores, auroc),
        Metric("r2", found.numbers, r2),
    ]


def drawn(metric: Metric, pairs: Sequence[Pair], n: int, m: int, random: Draw) -> list[Compared]:
    """A sweep of n seeds and m samples that compares arms with one scratch; an arm with itself takes other seeds."""
    available, samples = next(iter(metric.values.values())).shape
    seeds = random.choice(available, (1 + len(pairs), n), replace=False)
    rows = random.choice(samples, m, replace=False)
    found = []

    def parts(arm: str, places: np.ndarray) -> np.ndarray:
        return metric.contribute(metric.values[arm][places[:, None], rows], rows)

    scratch = parts(pairs[0][1], seeds[0])
    for pair, own in zip(pairs, seeds[1:], strict=True):
        differences = (parts(pair[0], seeds[0] if pair[0] != pair[1] else own) - scratch).astype(float)
        on_rows = float(metric.by_sample[pair[0]][rows].mean() - metric.by_sample[pair[1]][rows].mean())
        found.append(Compared(pair, over_seeds(differences.mean(1)), crossed(differences).estimate, on_rows))
    return found


def holds(one: Estimate, truth: float, comparisons: int = 1) -> bool:
    """Whether its interval holds the truth; where no spread was seen, whether its mean is it."""
    low, high = one.interval(comparisons=comparisons)
    return low <= truth <= high


def helps(one: Estimate, comparisons: int = 1, look: int = 1) -> bool:
    """Whether a page would say so."""
    return one.has_interval and one.interval(1 - level(look), comparisons)[0] > 0


@dataclass(frozen=True)
class Row:
    """Rates of a cell, as its table shows them, and what is wrong with them."""

    cells: list[str]
    wrong: list[str]


def coverage(metric: Metric, n: int, m: int, arms: int, replications: int, random: Draw, claimed: bool = True) -> Row:
    """How often the intervals of sweeps of `arms` arms hold the truth."""
    b, together, a, a_as_b, width = [], [], [], [], []
    skew = 0.0
    for _ in range(replications):
        scratch, *others = random.permutation(metric.arms)[:arms].tolist()
        found = drawn(metric, [(other, scratch) for other in others], n, m, random)
        truths = [metric.truth(one.pair) for one in found]
        skew = max(skew, *(abs(truth.skew) for truth in truths))
        b += [holds(one.b, truth.mean) for one, truth in zip(found, truths, strict=True)]
        together.append(all(holds(one.b, truth.mean, len(found)) for one, truth in zip(found, truths, strict=True)))
        a += [holds(one.a, one.truth_on_rows) for one in found]
        a_as_b += [holds(one.a, truth.mean) for one, truth in zip(found, truths, strict=True)]
        width += [
            (one.b.interval()[1] - one.b.interval()[0]) / truth.width(n, m)
            for one, truth in zip(found, truths, strict=True)
        ]
    place = f"{metric.name}, {n} seeds, {m} samples, {arms} arms"
    claims = claimed and skew < SKEW
    wrong = [
        f"{place}: {name} covers {np.mean(values):.3f}, below {COVERED}"
        for name, values in (("B", b), ("B together", together))
        if claims and np.mean(values) < COVERED
    ]
    rates = [f"{np.mean(values):.3f}" for values in (b, together, a, a_as_b)]
    return Row(
        [
            metric.name,
            str(n),
            str(m),
            str(arms),
            *rates,
            f"{np.median(width):.2f}",
            f"{skew:.2f}{'' if claims else ', no claim'}",
        ],
        wrong,
    )


def false_claims(metric: Metric, n: int, m: int, arms: int, replications: int, random: Draw) -> Row:
    """How often a page says "helps" where all arms are the same, and where transfer hurts."""
    negative = pairs_of(metric, lambda difference: -0.05 < difference < -0.002)
    headline, anywhere, hurting = [], [], []
    for _ in range(replications):
        arm = metric.arms[random.integers(len(metric.arms))]
        claimed = [helps(one.b, arms - 1) for one in drawn(metric, [(arm, arm)] * (arms - 1), n, m, random)]
        headline.append(claimed[0])
        anywhere.append(any(claimed))
        if negative:
            hurting.append(helps(drawn(metric, [negative[random.integers(len(negative))]], n, m, random)[0].b))
    place = f"{metric.name}, {n} seeds, {m} samples, {arms} arms"
    found = [
        falsely(f"{place}: {where}", values)
        for where, values in (
            ("the first line", headline),
            ("a row", anywhere),
            ("at a negative transfer, it", hurting),
        )
    ]
    return Row(
        [metric.name, str(n), str(m), str(arms), *(cell for cell, _ in found)], [w for _, wrong in found for w in wrong]
    )


def falsely(place: str, claimed: Sequence[bool]) -> tuple[str, list[str]]:
    """The cell of a rate of false claims, and what is wrong where its upper bound is too high."""
    if not claimed:
        return "no such pair", []
    bound = clopper_pearson(sum(claimed), len(claimed))
    wrong = [f"{place} says helps falsely, up to {bound:.3f}"] if bound > FALSE else []
    return f"{np.mean(claimed):.3f} ({bound:.3f})", wrong


def pairs_of(metric: Metric, wanted: Callable[[float], bool]) -> list[Pair]:
    """Pairs of arms whose true difference is as wanted."""
    return [pair for pair in itertools.permutations(metric.arms, 2) if wanted(metric.truth(pair).mean)]


def detection(metric: Metric, n: int, m: int, replications: int, random: Draw) -> Row:
    """How often a page of one comparison says "helps" where transfer helps by about 1, 2 and 5 points."""
    cells = [metric.name, str(n), str(m)]
    for wanted in DIFFERENCES:
        if pairs := pairs_of(metric, lambda difference, wanted=wanted: abs(difference / wanted - 1) < 0.25):
            picks = random.integers(len(pairs), size=replications)
            seen = [helps(drawn(metric, [pairs[pick]], n, m, random)[0].b) for pick in picks]
            cells.append(f"{np.mean(seen):.3f}")
        else:
            cells.append("no such pair")
    return Row(cells, [])


def looking(metric: Metric, m: int, replications: int, random: Draw) -> Row:
    """How often adding seeds while nothing is shown ends with a false "helps", with Pocock's levels and without."""
    available, samples = next(iter(metric.values.values())).shape
    spending, careless = [], []
    for _ in range(replications):
        values = metric.values[metric.arms[random.integers(len(metric.arms))]]
        seeds = random.choice(available, (2, LOOKS[-1]), replace=False)
        rows = random.choice(samples, m, replace=False)
        mine, other = (metric.contribute(values[one[:, None], rows], rows) for one in seeds)
        differences = (mine - other).astype(float)
        estimates = [crossed(differences[:n]).estimate for n in LOOKS]
        spending.append(any(helps(one, look=look) for look, one in enumerate(estimates, 1)))
        careless.append(any(map(helps, estimates)))
    cell, wrong = falsely(f"{metric.name}, {m} samples: after {len(LOOKS)} looks a page", spending)
    return Row([metric.name, ", ".join(map(str, LOOKS)), str(m), cell, f"{np.mean(careless):.3f}"], wrong)


def clopper_pearson(count: int, n: int) -> float:
    """The upper end of the exact two-sided 95 % interval of a rate."""
    return 1.0 if count == n else float(special.betaincinv(count + 1, n - count, (1 + CONFIDENCE) / 2))


def collapsed(metric: Metric, random: Draw) -> Metric:
    """The metric where a part of all seeds finish no better than chance without failing."""
    values = {}
    for arm, found in metric.values.items():
        values[arm] = found.copy()
        bad = np.flatnonzero(random.random(len(found)) < COLLAPSED)
        values[arm][bad] = random.random((len(bad), found.shape[1])) < 0.1
    return Metric(f"{metric.name}, {COLLAPSED:.0%} of seeds collapsed", values, metric.contribute)


def places(metric: Metric, n: int, m: int, arms: int, replications: int, random: Draw) -> Row:
    """How often all arms of a sweep are in a place that its intervals leave open, and how many places those are."""
    held, width = [], []
    for _ in range(replications):
        chosen = random.permutation(metric.arms)[:arms].tolist()
        pairs = list(itertools.combinations(chosen, 2))
        found = open_places(chosen, list(ordered(metric, chosen, pairs, n, m, random)))
        true = sorted(chosen, key=lambda arm: -metric.by_sample[arm].mean())
        held.append(all(found[arm][0] <= place <= found[arm][1] for place, arm in enumerate(true, 1)))
        width.append(float(np.mean([last - first + 1 for first, last in found.values()])))
    cells = [metric.name, str(n), str(m), str(arms), f"{np.mean(held):.3f}", f"{np.mean(width):.1f}"]
    return Row(cells, too_rarely(f"places of {arms} arms, {n} seeds, {m} samples", held))


def ordered(
    metric: Metric, chosen: Sequence[str], pairs: Sequence[Pair], n: int, m: int, random: Draw
) -> Iterator[Pair]:
    """The pairs whose simultaneous interval leaves out 0, of one drawn sweep, the better arm first."""
    available, samples = next(iter(metric.values.values())).shape
    seeds = random.choice(available, n, replace=False)
    rows = random.choice(samples, m, replace=False)
    parts = {arm: metric.contribute(metric.values[arm][seeds[:, None], rows], rows).astype(float) for arm in chosen}
    for first, second in pairs:
        low, high = crossed(parts[first] - parts[second]).estimate.interval(comparisons=len(pairs))
        if low > 0 or high < 0:
            yield (first, second) if low > 0 else (second, first)


def grouped(metric: Metric, n: int, m: int, replications: int, random: Draw) -> Row:
    """How often intervals hold the truth where test samples come in groups that are alike, with and without groups.

    The samples of a group are those that a pair of arms differs on by about as much.
    """
    scratch, other = metric.arms[0], metric.arms[-1]
    alike = (metric.by_sample[other] - metric.by_sample[scratch]).argsort(kind="stable").reshape(-1, GROUP)
    available = len(metric.values[other])
    truth, numbers = metric.truth((other, scratch)).mean, np.arange(m) // GROUP
    by_groups, by_samples = [], []
    for _ in range(replications):
        rows = alike[random.choice(len(alike), m // GROUP, replace=False)].ravel()
        seeds = random.choice(available, n, replace=False)
        mine, theirs = (
            metric.contribute(metric.values[arm][seeds[:, None], rows], rows).astype(float) for arm in (other, scratch)
        )
        by_groups.append(holds(crossed(by_group(mine - theirs, numbers)).estimate, truth))
        by_samples.append(holds(crossed(mine - theirs).estimate, truth))
    cells = [metric.name, str(n), str(m), str(m // GROUP), f"{np.mean(by_groups):.3f}", f"{np.mean(by_samples):.3f}"]
    return Row(cells, too_rarely(f"groups, {n} seeds, {m} samples", by_groups))


def too_rarely(place: str, held: Sequence[bool]) -> list[str]:
    """What is wrong where intervals hold the truth less often than promised."""
    return [f"{place}: {np.mean(held):.3f} hold, below {COVERED}"] if np.mean(held) < COVERED else []


def folded(metric: Metric, evaluation: int, m: int, replications: int, random: Draw) -> Row:
    """How often the corrected t of folds or splits holds the truth, and says "helps" where nothing does."""
    name = list(EVALUATIONS)[evaluation]
    found = cut(population(), name, m, max(round(FOLDED * replications), 2), random)
    truth, deviation = found.gain.mean(), found.gain.mean(axis=1).std(ddof=1)
    corrected = [over_splits(one, found.test_over_rest) for one in found.gain]
    covered = [holds(one, truth) for one in corrected]
    uncorrected = np.mean([holds(over_seeds(one), truth) for one in found.gain])
    width = np.median([one.interval()[1] - one.interval()[0] for one in corrected])
    oracle = 2 * float(special.ndtri((1 + CONFIDENCE) / 2)) * deviation
    place = f"{name}, {m} samples"
    false, wrong = falsely(place, [helps(over_splits(one, found.test_over_rest)) for one in found.same])
    seen = np.mean([helps(one) for one in corrected])
    rates = [f"{np.mean(covered):.3f}", f"{uncorrected:.3f}", f"{width / oracle:.2f}", false]
    cells = [metric.name, name, str(m), *rates, f"{100 * truth:.1f}: {seen:.3f}"]
    return Row(cells, [*too_rarely(place, covered), *wrong])


Task = tuple[int, Callable[..., Row], int, dict[str, int | bool]]  # table, what makes a row of it, metric, and its cell
METRICS: list[Metric] = []  # that the processes share

TABLES = {
    "Coverage of 95 % intervals": [
        *("metric", "seeds", "test samples", "arms", "B", "B, together", "A", "A read as B"),
        *("width of B over the oracle's", "largest skew"),
    ],
    'How often "helps" is false (upper bound)': [
        *("metric", "seeds", "test samples", "arms", "first line, all the same", "any row, all the same"),
        "negative transfer",
    ],
    "How often a true gain is seen": [
        *("metric", "seeds", "test samples"),
        *(f"{100 * one:g} points" for one in DIFFERENCES),
    ],
    'Seeds added after looking: how often "helps" is false': [
        *("metric", "seeds at each look", "test samples", "Pocock's levels (upper bound)", "as if it were the first"),
    ],
    "Places": ["metric", "seeds", "test samples", "arms", "all places hold", "places left open, mean of an arm"],
    f"Test samples in groups of {GROUP}": [
        *("metric", "seeds", "test samples", "groups", "B over groups", "B over samples"),
    ],
    "Folds and splits": [
        *("metric", "evaluation", "samples", "corrected t", "t without correction", "width over the oracle's"),
        *("false helps (upper bound)", "points of a true gain: how often seen"),
    ],
}


def tasks(seeds: Sequence[int], samples: Sequence[int], arms: Sequence[int]) -> Iterator[Task]:
    """The rows of all tables in order; the last of METRICS has collapsed seeds."""
    cells = [{"n": n, "m": m} for n, m in itertools.product(seeds, samples)]
    broken = len(METRICS) - 1
    sweeps = [
        (metric, {**cell, "arms": count})
        for metric, cell, count in itertools.product(range(broken), cells, arms)
        if count <= len(METRICS[metric].arms)
    ]
    for metric, sweep in sweeps:
        yield 0, coverage, metric, sweep
    for cell in cells:
        yield 0, coverage, broken, {**cell, "arms": 2, "claimed": False}
    for metric, sweep in sweeps:
        yield 1, false_claims, metric, sweep
    for metric, cell in itertools.product(range(broken), cells):
        yield 2, detection, metric, cell
    for metric, m in itertools.product(range(broken), samples):
        yield 3, looking, metric, {"m": m}
    for cell, count in itertools.product(cells, RANKED):
        yield 4, places, 0, {**cell, "arms": count}
    for cell in cells:
        yield 5, grouped, 0, cell
    for evaluation, m in itertools.product(range(len(EVALUATIONS)), samples):
        yield 6, folded, 0, {"evaluation": evaluation, "m": m}


def row(task: Task, replications: int, seed: int) -> tuple[int, Row]:
    """A table's number and a row of it, from random numbers of its own."""
    table, make, metric, cell = task
    random = np.random.default_rng([seed, table, metric, *map(int, cell.values())])
    return table, make(METRICS[metric], **cell, replications=replications, random=random)


def rows(
    found: Pool,
    replications: int,
    seed: int,
    processes: int,
    cells: tuple[Sequence[int], Sequence[int], Sequence[int]],
    tables: Collection[int] = range(len(TABLES)),
) -> Iterator[tuple[int, Row]]:
    """Rows of the tables with these numbers; `cells` are numbers of seeds, test samples and arms."""
    METRICS[:] = [one for split in range(len(found.labels)) for one in metrics_of(found, split)[: 1 if split else None]]
    METRICS.append(collapsed(METRICS[0], np.random.default_rng(seed)))
    for metric in METRICS:
        for pair in itertools.permutations(metric.arms, 2):
            metric.truth(pair)
    wanted = [task for task in tasks(*cells) if task[0] in tables]
    if any(task[1] is folded for task in wanted):
        population()
    make = functools.partial(row, replications=replications, seed=seed)
    if processes == 1:
        yield from map(make, wanted)
        return
    with multiprocessing.get_context("fork").Pool(processes) as workers:  # which share the pool's arrays
        yield from workers.imap(make, wanted)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and write the tables; the exit code is 1 where a rate misses what is promised."""
    parser = argparse.ArgumentParser(prog="make calibrate", description=__doc__)
    parser.add_argument("--replications", type=int, default=REPLICATIONS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--tables", type=int, nargs="+", default=range(len(TABLES)), help="their numbers, from 0")
    asked = parser.parse_args(arguments)
    found = pool(Size(), asked.folder)
    lines, wrong, shown = [f"{asked.replications:,} sweeps a cell, seed {asked.seed}."], [], -1
    print(lines[0])
    cells = SEEDS, SAMPLES, ARMS
    for table, one in rows(found, asked.replications, asked.seed, asked.processes, cells, asked.tables):
        new = [f"| {' | '.join(one.cells)} |"]
        if table != shown:
            title, header = list(TABLES.items())[table]
            new = ["", f"### {title}", "", f"| {' | '.join(header)} |", "|---" * len(header) + "|", *new]
            shown = table
        print("\n".join(new), flush=True)
        lines += new
        wrong += one.wrong
    (asked.folder / "tables.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(["", *wrong]) if wrong else "\nEvery rate is as promised.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
