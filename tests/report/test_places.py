"""Places of strategies, and what is said of them over several settings; checked against other computations."""

import numpy as np
import pytest
from scipy import stats
from test_study import Sweep

from graft.report import across
from graft.report.ranks import rank_intervals
from graft.report.sweep_page import page


@pytest.fixture
def sweep(tmp_path):
    return Sweep(tmp_path)


def test_places_that_the_intervals_leave_open(sweep):
    (setting,) = sweep.strategies(scratch=0.5, frozen=0.69, full=0.7, lora=0.95).read().settings
    assert rank_intervals(setting) == {"lora": (1, 1), "full": (2, 3), "frozen": (2, 3), "scratch": (4, 4)}


def test_two_seeds_leave_every_place_open_and_are_not_shown(sweep):
    (setting,) = sweep.strategies(seeds=2, noise=0, scratch=0.5, full=0.9).read().settings
    assert rank_intervals(setting) == {}


@pytest.mark.slow
def test_places_hold_the_truth_where_all_are_the_same(tmp_path):
    """Simultaneous intervals of 3 arms that differ by nothing leave a place out in at most 1 of 20 sweeps."""
    random, wrong = np.random.default_rng(0), 0
    for number in range(40):
        one = Sweep(tmp_path / str(number))
        for seed in range(4):
            for name in ("scratch", "frozen", "full"):
                one.add(f"strategy={name} seed={seed}", random.random(200) < 0.7 + random.normal(0, 0.02))
        (setting,) = one.read().settings
        wrong += set(rank_intervals(setting).values()) != {(1, 3)}
    assert wrong <= 4


def test_measures_over_settings_are_those_of_the_paper():
    random = np.random.default_rng(1)
    found = {name: [random.random(5).round(1) for _ in range(3)] for name in ("a", "b", "c")}
    flat = np.concatenate(found["a"])
    assert across.interquartile_mean(found["a"]) == pytest.approx(stats.trim_mean(flat, 0.25))
    expected = np.mean([stats.mannwhitneyu(x, y).statistic / 25 for x, y in zip(found["a"], found["b"], strict=True)])
    assert across.improvement(found["a"], found["b"], True) == pytest.approx(expected)
    assert across.improvement(found["a"], found["b"], False) == pytest.approx(1 - expected)
    means = np.array([[values.mean() for values in settings] for settings in found.values()])
    places = stats.rankdata(-means, axis=0).mean(axis=1)
    assert list(across.places(found, True).values()) == pytest.approx(places)


def test_a_sweep_over_settings_says_which_strategy_is_best_over_all(sweep):
    random = np.random.default_rng(0)
    for labels, gap in ((2, 0.2), (5, 0.1)):
        for seed in range(5):
            for name, accuracy in (("scratch", 0.6), ("full", 0.6 + gap), ("frozen", 0.3)):
                keys = f"data.labels_per_class={labels} strategy={name} seed={seed}"
                sweep.add(keys, random.random(200) < accuracy)
    found = page(sweep.read())
    table = next(table for section in found.sections for table in section.tables if table.name == "across")
    assert [line[0] for line in table.rows] == ["full", "scratch", "frozen"]
    assert [line[1] for line in table.rows] == ["1.0", "2.0", "3.0"]
    full = dict(zip(table.header, table.rows[0], strict=True))
    assert float(full["better than scratch"]) > 0.9
    assert "over all settings" in found.html().lower()
