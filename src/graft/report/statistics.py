"""How sure a comparison is: intervals over seeds, over test samples and over both, and corrections for several looks.

Estimand A is the mean over seeds on this test set and this split; estimand B is over new test samples too. What
intervals hold, and where they do not, is in docs/evidence.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special  # not scipy.stats, which takes seconds to import

from graft.runs.sweeps import MIN_SEEDS

CONFIDENCE = 0.95
POWER = 0.8
MAX_SEEDS = 10_000  # that the search for the number of seeds goes to


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error (0: no spread seen) and degrees of freedom (infinite: normal)."""

    mean: float
    error: float
    df: float
    n: int  # seeds, or splits where those vary

    @property
    def has_interval(self) -> bool:
        """Whether there are enough values, and any spread among them."""
        return self.n >= MIN_SEEDS and self.error > 0

    def interval(self, confidence: float = CONFIDENCE, comparisons: int = 1) -> tuple[float, float]:
        """The two-sided interval; Bonferroni's for each of several simultaneous `comparisons`."""
        half = quantile(self.df, 1 - (1 - confidence) / (2 * comparisons)) * self.error
        return self.mean - half, self.mean + half

    @property
    def p(self) -> float:
        """Two-sided p-value of a mean of 0."""
        statistic = abs(self.mean) / self.error
        if math.isinf(self.df):
            return float(2 * special.ndtr(-statistic))
        return float(2 * special.stdtr(self.df, -statistic))


def over_seeds(values: Sequence[float] | np.ndarray) -> Estimate:
    """Estimand A from a value, or a paired difference, for each of n seeds: Student's t."""
    return over_units(values, 0.0)


def over_splits(values: Sequence[float] | np.ndarray, test_over_train: float) -> Estimate:
    """Mean over n random splits, whose training sets overlap: the corrected t of Nadeau and Bengio (2003).

    `test_over_train` is the number of test samples over that of training samples in a split.
    """
    return over_units(values, test_over_train)


def over_units(values: Sequence[float] | np.ndarray, overlap: float) -> Estimate:
    """Mean over n seeds, of overlap 0, or over n splits of the overlap that `over_splits` has."""
    found = np.asarray(values, dtype=float)
    error = spread(found) * math.sqrt(1 / len(found) + overlap) if len(found) > 1 else 0.0
    return Estimate(float(found.mean()), error, max(len(found) - 1, 1), len(found))


@dataclass(frozen=True)
class Crossed:
    """Estimand B from contributions of n seeds x m test samples, with what seeds and samples add to its variance.

    `seeds` is S_seed^2 / n, `samples` S_case^2 / m and `interaction` S_int^2 / (n m), which both of them hold.
    """

    estimate: Estimate
    seeds: float
    samples: float
    interaction: float
    cases: int  # test samples, or groups of them, that are taken as independent

    @property
    def floor(self) -> float:
        """The standard error that would be left with infinitely many seeds on these test samples."""
        return math.sqrt(max(self.samples - self.interaction, 0.0))


def crossed(contributions: np.ndarray) -> Crossed:
    """The mean of `(n, m)` contributions, or paired differences of them, with the variance of a two-way random layout.

    V = S_seed^2/n + S_case^2/m - S_int^2/(n m), at least the larger of the first two: their plain sum would count the
    interaction twice. Degrees of freedom are Satterthwaite's.
    """
    n, m = contributions.shape
    if n < 2 or m < 2:
        raise ValueError(f"a crossed variance needs 2 seeds and 2 samples at least, and there are {n} and {m}")
    rows, columns, mean = contributions.mean(axis=1), contributions.mean(axis=0), contributions.mean()
    residual = contributions - rows[:, None] - columns[None, :] + mean
    seeds = spread(rows) ** 2 / n
    samples = spread(columns) ** 2 / m
    interaction = float((residual**2).sum()) / ((n - 1) * (m - 1)) / (n * m)
    variance = max(seeds + samples - interaction, seeds, samples)
    parts = seeds**2 / (n - 1) + samples**2 / (m - 1) + interaction**2 / ((n - 1) * (m - 1))
    df = variance**2 / parts if parts > 0 else float(n - 1)
    return Crossed(Estimate(float(mean), math.sqrt(variance), df, n), seeds, samples, interaction, m)


def by_group(contributions: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Contributions `(..., m)` of samples as those of their groups `(..., G)`, with the same mean.

    Samples of one group (a patient, a speaker) are not independent, groups are: a group's contribution is the sum of
    its samples' distances to the mean, scaled. For AUROC this is Obuchowski's (1997) variance of clustered data.
    """
    numbers = np.unique(groups, return_inverse=True)[1]
    mean = contributions.mean(axis=-1, keepdims=True)
    sums = np.apply_along_axis(lambda row: np.bincount(numbers, row), -1, contributions - mean)
    return mean + sums * sums.shape[-1] / contributions.shape[-1]


def spread(values: np.ndarray) -> float:
    """Sample standard deviation (n - 1), 0 where the values differ by nothing but rounding."""
    found = float(np.std(values, ddof=1))
    return found if found > 1e-9 * max(1.0, float(np.abs(values).max())) else 0.0


def quantile(df: float, probability: float) -> float:
    """Quantile of Student's t, of the normal distribution at infinite degrees of freedom."""
    return float(special.ndtri(probability) if math.isinf(df) else special.stdtrit(df, probability))


def proxy_a_distance(error: float) -> float:
    """Distance of two domains at the error of a linear classifier of them (Ben-David et al., 2010): 2 (1 - 2 error)."""
    return 2 * (1 - 2 * error)


def wilson(successes: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's interval of a fraction of n test samples: what one run's accuracy says of new samples."""
    z = quantile(math.inf, (1 + confidence) / 2)
    center = (successes + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * math.sqrt(successes * (n - successes) / n + z**2 / 4)
    return max(center - half, 0.0), min(center + half, 1.0)


def bootstrap(contributions: np.ndarray, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the mean of `(m,)` contributions over redrawn test samples: sampling error alone."""
    random = np.random.default_rng(seed)
    m = len(contributions)
    means = np.array([contributions[random.integers(0, m, m)].mean() for _ in range(draws)])
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values of a family, in its order."""
    found = np.asarray(p_values, dtype=float)
    order = np.argsort(found, kind="stable")
    steps = np.minimum(found[order] * np.arange(len(found), 0, -1), 1.0)
    adjusted = np.empty_like(found)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted.tolist()


def power(n: int, difference: float, deviation: float, comparisons: int = 1) -> float:
    """Chance that a two-sided paired t-test of n seeds sees a true difference, given the deviation over seeds."""
    limit = quantile(n - 1, 1 - (1 - CONFIDENCE) / (2 * comparisons))
    shift = difference * math.sqrt(n) / deviation
    return float(1 - special.nctdtr(n - 1, shift, limit) + special.nctdtr(n - 1, shift, -limit))


def seeds_needed(difference: float, deviation: float, comparisons: int = 1) -> int:
    """The fewest seeds, MIN_SEEDS at least, at which a true difference is seen with POWER; at most MAX_SEEDS."""
    low, high = MIN_SEEDS, MAX_SEEDS
    if deviation <= 0:
        return low
    while low < high:
        middle = (low + high) // 2
        # the noncentral t is NaN where the shift is so large that nothing is left to miss
        seen = power(middle, difference, deviation, comparisons)
        low, high = (low, middle) if math.isnan(seen) or seen >= POWER else (middle + 1, high)
    return low


def further_seeds(differences: Sequence[float], difference: float = 0.01, comparisons: int = 1) -> tuple[int, int, int]:
    """(about, from, to) how many more seeds see a true `difference` with POWER, by the measured spread.

    From and to take the ends of the spread's own 95 % interval (chi-square), which is wide at few seeds.
    """
    found = np.asarray(differences, dtype=float)
    n, deviation = len(found), spread(found)
    tails = np.array([(1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2])
    ends = 2 * special.gammaincinv((n - 1) / 2, tails)  # quantiles of chi-square
    deviations = (deviation, *(deviation * math.sqrt((n - 1) / end) for end in ends))
    about, low, high = (max(seeds_needed(difference, one, comparisons) - n, 0) for one in deviations)
    return about, low, high


@dataclass(frozen=True)
class Calibration:
    """Reliability of the predicted class's probability, in bins of about equally many samples."""

    confidence: np.ndarray  # (bins,) mean probability
    accuracy: np.ndarray  # (bins,) fraction of right predictions
    counts: np.ndarray  # (bins,)

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of confidence and accuracy, by samples."""
        return float(np.average(np.abs(self.confidence - self.accuracy), weights=self.counts))


def calibration(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> Calibration:
    """Bins of predictions by their confidence, `(m,)` or `(seeds, m)`, equal ones together; `correct` is 0 or 1."""
    confidence, correct = confidence.ravel(), correct.ravel()
    edges = np.sort(confidence)[[len(confidence) * number // bins for number in range(1, bins)]]
    places = np.searchsorted(edges, confidence, "right")
    counts = np.bincount(places, minlength=bins)
    sums = [np.bincount(places, values, minlength=bins)[counts > 0] for values in (confidence, correct)]
    counts = counts[counts > 0]
    return Calibration(sums[0] / counts, sums[1] / counts, counts)


def calibration_interval(
    confidence: np.ndarray, correct: np.ndarray, bins: int = 10, draws: int = 200, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the calibration error over redrawn samples, the last axis; it leans upwards, as the error.

    That is because chance alone moves a bin's accuracy away from its confidence.
    """
    random = np.random.default_rng(seed)
    m = confidence.shape[-1]
    places = (random.integers(0, m, m) for _ in range(draws))
    errors = [calibration(confidence[..., place], correct[..., place], bins).error for place in places]
    low, high = np.quantile(errors, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
