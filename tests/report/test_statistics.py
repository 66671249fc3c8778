"""Every statistic against an independent computation, and the headline's interval against a known truth."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import r2_score, roc_auc_score, root_mean_squared_error

from graft.report.contributions import contributions, delong, placements
from graft.report.statistics import (
    bootstrap,
    by_group,
    calibration,
    calibration_interval,
    crossed,
    further_seeds,
    holm,
    over_seeds,
    over_splits,
    power,
    seeds_needed,
    wilson,
)

DIFFERENCES = [0.02, 0.05, 0.01, 0.04, 0.06]


def test_over_seeds_is_the_paired_t_test():
    found, reference = over_seeds(DIFFERENCES), stats.ttest_1samp(DIFFERENCES, 0)
    assert found.p == pytest.approx(reference.pvalue)
    assert found.interval() == pytest.approx(tuple(reference.confidence_interval()))
    assert found.interval(comparisons=4) == pytest.approx(tuple(reference.confidence_interval(1 - 0.05 / 4)))


def test_no_interval_of_two_seeds_and_of_no_spread():
    assert not over_seeds([0.1, 0.2]).has_interval
    assert not over_seeds([0.1]).has_interval
    assert not over_seeds([0.1, 0.1, 0.3 - 0.2]).has_interval  # equal but for rounding
    assert over_seeds([0.1, 0.2, 0.1]).has_interval


def test_splits_are_corrected_as_nadeau_and_bengio_do():
    """Their formula by hand: 5 splits, a quarter of the samples for testing."""
    found = over_splits(DIFFERENCES, test_over_train=1 / 3)
    variance = (1 / 5 + 1 / 3) * np.var(DIFFERENCES, ddof=1)
    t = np.mean(DIFFERENCES) / math.sqrt(variance)
    assert found.p == pytest.approx(2 * stats.t(4).sf(t))
    low, high = found.interval()
    assert high - low == pytest.approx(2 * stats.t(4).ppf(0.975) * math.sqrt(variance))


def test_crossed_variance_is_that_of_the_two_way_layout():
    """From the mean squares of an analysis of variance: (MS_seed + MS_case - MS_int) / (n m)."""
    values = np.random.default_rng(0).normal(size=(4, 30)) + np.random.default_rng(1).normal(size=(4, 1))
    n, m = values.shape
    mean, rows, columns = values.mean(), values.mean(1), values.mean(0)
    ms_seed = m * ((rows - mean) ** 2).sum() / (n - 1)
    ms_case = n * ((columns - mean) ** 2).sum() / (m - 1)
    total = ((values - mean) ** 2).sum()
    ms_int = (total - ms_seed * (n - 1) - ms_case * (m - 1)) / ((n - 1) * (m - 1))
    found = crossed(values)
    variance = (ms_seed + ms_case - ms_int) / (n * m)
    assert found.estimate.error**2 == pytest.approx(max(variance, ms_seed / (n * m)))
    assert found.estimate.mean == pytest.approx(mean)
    expected = [ms_seed / (n * m), ms_case / (n * m), ms_int / (n * m)]
    assert [found.seeds, found.samples, found.interaction] == pytest.approx(expected)
    parts = sum(
        (ms / (n * m)) ** 2 / df for ms, df in ((ms_seed, n - 1), (ms_case, m - 1), (ms_int, (n - 1) * (m - 1)))
    )
    assert found.estimate.df == pytest.approx(found.estimate.error**4 / parts)


def test_the_variance_is_at_least_its_larger_part():
    found = crossed(np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]]))  # all of it interaction
    assert found.estimate.error**2 >= max(found.seeds, found.samples)
    assert found.seeds == found.samples == 0.0 < found.interaction


@pytest.mark.parametrize(("n", "m"), [(3, 150), (5, 500), (10, 150)])
def test_the_crossed_interval_covers_the_truth_and_that_over_seeds_does_not(n, m):
    """Seeds and test samples drawn anew each time from a two-way model whose mean is known."""
    random, truth, repeats = np.random.default_rng(n), 0.03, 400
    both = alone = 0
    for _ in range(repeats):
        seeds, cases = random.normal(0, 0.01, (n, 1)), random.normal(0, 0.3, (1, m))
        values = truth + seeds + cases + random.normal(0, 0.3, (n, m))
        low, high = crossed(values).estimate.interval()
        both += low <= truth <= high
        low, high = over_seeds(values.mean(1)).interval()
        alone += low <= truth <= high
    assert both / repeats >= 0.93
    assert alone < both


def test_wilson_is_scipys():
    for successes, n in ((15, 18), (0, 20), (500, 500)):
        reference = stats.binomtest(successes, n).proportion_ci(method="wilson")
        assert wilson(successes, n) == pytest.approx((reference.low, reference.high))


def test_bootstrap_agrees_with_the_closed_form_of_a_fraction():
    correct = np.repeat([1.0, 0.0], [400, 100])
    low, high = bootstrap(correct)
    half = 1.96 * math.sqrt(0.8 * 0.2 / 500)
    assert (low, high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.004)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_power_and_seeds_agree_with_a_simulation():
    random, n, deviation = np.random.default_rng(0), 8, 0.01
    draws = random.normal(0.01, deviation, (4000, n))
    seen = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert power(n, 0.01, deviation) == pytest.approx(seen, abs=0.025)
    needed = seeds_needed(0.01, deviation)
    assert power(needed, 0.01, deviation) >= 0.8 > power(needed - 1, 0.01, deviation)
    assert seeds_needed(0.01, 0.0001) == 3  # a shift at which scipy's noncentral t gives up


def test_further_seeds_come_with_how_little_three_seeds_know():
    about, low, high = further_seeds([0.0, 0.02, 0.04])
    assert low < about < high
    assert about == seeds_needed(0.01, 0.02) - 3
    deviation = 0.02 * math.sqrt(2 / stats.chi2(2).ppf(0.025))
    assert high == seeds_needed(0.01, deviation) - 3 > 20 * about


def area_by_pairs(scores, positive):
    pairs = scores[positive][:, None] - scores[~positive][None, :]
    return (pairs > 0) + 0.5 * (pairs == 0)


def test_delong_is_that_of_its_definition_with_ties():
    random = np.random.default_rng(0)
    positive = random.random(80) < 0.3
    scores = np.round(random.normal(size=80) + positive, 1)
    wins = area_by_pairs(scores, positive)
    area, variance = delong(scores, positive)
    assert area == pytest.approx(roc_auc_score(positive, scores)) == pytest.approx(wins.mean())
    by_positive, by_negative = wins.mean(1), wins.mean(0)
    expected = by_positive.var(ddof=1) / len(by_positive) + by_negative.var(ddof=1) / len(by_negative)
    assert variance == pytest.approx(expected)
    values = placements(scores, positive)
    assert values.mean() == pytest.approx(area)
    assert values.var(ddof=1) / 80 == pytest.approx(variance, rel=0.05)


def test_contributions_have_the_metric_as_their_mean():
    random = np.random.default_rng(0)
    true = random.normal(size=60)
    found = true + random.normal(0, 0.5, 60)
    numbers = {"label": true.tolist(), "prediction": found.tolist(), "classes": None}
    assert contributions("r2", numbers).mean() == pytest.approx(r2_score(true, found))
    assert contributions("rmse", numbers).mean() == pytest.approx(root_mean_squared_error(true, found))
    assert contributions("mae", numbers).mean() == pytest.approx(np.abs(true - found).mean())

    labels = random.integers(0, 3, 60)
    rows = random.dirichlet(np.ones(3), 60)
    words = {"label": [f"c{i}" for i in labels], "prediction": [f"c{i}" for i in rows.argmax(1)]}
    words |= {"probabilities": rows.tolist(), "classes": ["c0", "c1", "c2"]}
    assert contributions("acc", words).mean() == pytest.approx((rows.argmax(1) == labels).mean())
    expected = roc_auc_score(labels, rows, multi_class="ovr", average="macro")
    assert contributions("auroc", words).mean() == pytest.approx(expected)
    assert contributions("f1", words) is None


@pytest.mark.slow
def test_the_linearised_error_of_r2_is_that_of_the_bootstrap():
    random = np.random.default_rng(0)
    true = random.normal(size=300)
    found = true + random.normal(0, 0.7, 300)
    values = contributions("r2", {"label": true, "prediction": found, "classes": None})
    places = random.integers(0, 300, (2000, 300))
    redrawn = [r2_score(true[place], found[place]) for place in places]
    assert values.std(ddof=1) / math.sqrt(300) == pytest.approx(np.std(redrawn), rel=0.1)


def test_calibration_error_of_equally_filled_bins():
    found = calibration(np.array([0.9, 0.9, 0.6, 0.6]), np.array([1.0, 0.0, 1.0, 1.0]), bins=2)
    assert found.error == pytest.approx((0.4 + 0.4) / 2)  # .6 against 1, and .9 against .5
    assert found.counts.tolist() == [2, 2]
    tied = calibration(np.full(6, 0.8), np.array([1, 1, 1, 0, 0, 0.0]), bins=3)  # not by the samples' order
    assert tied.error == pytest.approx(0.3)
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 2000)
    correct = (random.random(2000) < confidence).astype(float)
    low, high = calibration_interval(confidence, correct, draws=50)
    assert low < calibration(confidence, correct).error < high < 0.06


def obuchowski(scores, positive, groups):
    """Variance of a clustered AUROC as in Obuchowski (1997), section 2, for groups that hold both classes."""
    sick, well = scores[positive], scores[~positive]
    v10 = np.array([np.mean((well < x) + 0.5 * (well == x)) for x in sick])
    v01 = np.array([np.mean((sick > y) + 0.5 * (sick == y)) for y in well])
    area, names = v10.mean(), np.unique(groups)
    a = np.array([v10[groups[positive] == g].sum() - area * (groups[positive] == g).sum() for g in names])
    b = np.array([v01[groups[~positive] == g].sum() - area * (groups[~positive] == g).sum() for g in names])
    factor, m, n = len(names) / (len(names) - 1), len(sick), len(well)
    return area, factor * ((a**2).sum() / m**2 + (b**2).sum() / n**2 + 2 * (a * b).sum() / (m * n))


def test_contributions_of_groups_are_obuchowskis():
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), random.integers(4, 9, 12))
    positive = np.arange(len(groups)) % 2 == 0
    scores = (random.random(12)[groups] + random.random(len(groups)) + 0.3 * positive).round(1)
    area, variance = obuchowski(scores, positive, groups)
    grouped = by_group(placements(scores, positive), groups)
    assert grouped.mean() == pytest.approx(area)
    assert grouped.var(ddof=1) / len(grouped) == pytest.approx(variance)
    alone = by_group(placements(scores, positive), np.arange(len(groups)))
    assert alone == pytest.approx(placements(scores, positive))


def test_copies_of_a_sample_say_no_more_than_one():
    values = np.random.default_rng(1).random((3, 40))
    copied, groups = np.repeat(values, 5, axis=1), np.repeat(np.arange(40), 5)
    assert by_group(copied, groups) == pytest.approx(values)
    assert crossed(by_group(copied, groups)).estimate.error == pytest.approx(crossed(values).estimate.error)
    assert crossed(copied).samples < crossed(values).samples / 4
