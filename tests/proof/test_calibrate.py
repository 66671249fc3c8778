"""A small part of `make calibrate`, with fixed seeds; and that it finds intervals that are too short."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.proof import calibrate
from tests.proof.calibration_folds import EVALUATIONS, batches, population
from tests.proof.calibration_pool import Size, pool

ALL_BUT_FOLDS = range(len(calibrate.TABLES) - 1)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    size = Size(seeds=50, splits=1, train=400, test=1000, sources=(0, 300))
    return pool(size, tmp_path_factory.mktemp("pool"))


def test_intervals_hold_the_truth_and_pages_rarely_claim_what_is_not_there(small):
    tables = {}
    for table, row in calibrate.rows(small, 100, 0, 1, ([5], [150], [2, 4]), ALL_BUT_FOLDS):
        tables.setdefault(table, []).append(row.cells)
    assert set(tables) == set(ALL_BUT_FOLDS)
    assert [row[:4] for row in tables[0][:2]] == [["acc", "5", "150", "2"], ["acc", "5", "150", "4"]]
    for row in tables[0][:4]:
        assert min(map(float, row[4:6])) > 0.9, row
    false = [float(cell.split()[0]) for row in tables[1] for cell in row[4:] if cell != "no such pair"]
    assert max(false) <= 0.06
    assert [float(row[-2].split()[0]) <= float(row[-1]) for row in tables[3]] == [True] * 3
    assert min(float(row[4]) for row in tables[4]) >= 0.93
    over_groups, over_samples = map(float, tables[5][0][4:])
    assert over_groups > max(0.85, over_samples)  # of the same draws; how far apart differs with the processor


@pytest.mark.slow
def test_the_corrected_t_of_folds_holds_the_truth_where_a_plain_one_does_not(monkeypatch):
    few = population(3000, (0, 300))
    monkeypatch.setattr(calibrate, "population", lambda: few)
    acc = calibrate.Metric("acc", {}, lambda values, rows: values)
    repeated = list(EVALUATIONS).index("5 folds, 3 times")
    row = calibrate.folded(acc, repeated, 150, 120, np.random.default_rng(0))
    corrected, plain = map(float, row.cells[3:5])
    assert corrected >= 0.93 > plain


def test_folds_of_a_drawn_set_test_each_of_its_samples_once():
    train, test = next(batches(torch.arange(10).repeat(60), "5 folds", 100, 2, np.random.default_rng(0)))
    first, second = (sets.unique() for sets in test.view(2, -1))
    assert [len(first), len(second)] == [100, 100]
    for mine, tested in zip(train[:5], test[:5], strict=True):
        assert set(mine.tolist()) == set(first.tolist()) - set(tested.tolist())


def test_intervals_that_leave_the_test_samples_out_are_found(small, monkeypatch):
    def seeds_alone(differences):
        found = crossed(differences)
        return dataclasses.replace(found, estimate=dataclasses.replace(found.estimate, error=found.seeds**0.5 / 2))

    crossed = calibrate.crossed
    monkeypatch.setattr(calibrate, "crossed", seeds_alone)
    acc = calibrate.metrics_of(small)[0]
    assert calibrate.coverage(acc, 5, 150, 2, 100, np.random.default_rng(0)).wrong


def test_the_upper_bound_is_clopper_and_pearsons():
    assert calibrate.clopper_pearson(0, 100) == pytest.approx(1 - 0.025 ** (1 / 100))
    assert calibrate.clopper_pearson(5, 100) == pytest.approx(0.1128, abs=1e-4)
    assert calibrate.clopper_pearson(3, 3) == 1
