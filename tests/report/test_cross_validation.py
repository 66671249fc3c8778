"""What a sweep over folds is read as: its interval, pooled scores, out-of-fold predictions and nested choices."""

import json

import numpy as np
import pytest
from pyarrow import parquet
from scipy import stats
from sklearn.metrics import roc_auc_score

from graft.report import out_of_fold, publish, summary
from graft.report.cross_validation import chosen_by_fold, num_tested, pooled
from tests.report.test_study import TEST, TRAIN, VAL, Sweep


@pytest.fixture
def sweep(tmp_path):
    return Sweep(tmp_path)


def add(sweep, line, fold, right, *, folds=4, kind="kfold", **more):
    evaluation = {"evaluation": kind, "fold": fold, "folds": folds}
    sweep.add(f"{line} data.fold={fold}", np.arange(TEST) < right, evaluation=evaluation, **more)


def test_folds_are_the_unit_and_corrected_as_nadeau_and_bengio_do(sweep):
    right = {"scratch": (100, 104, 96, 100), "full": (120, 130, 118, 124)}
    for name, counts in right.items():
        for fold, count in enumerate(counts):
            for seed in range(2):
                add(sweep, f"strategy={name} seed={seed}", fold, count + 2 * seed)
    (one,) = sweep.read().comparisons
    assert (one.splits, one.pairs, one.unit, one.crossed) == (4, 8, "fold", None)
    differences = np.array([20, 26, 22, 24]) / TEST
    overlap = TEST / (TRAIN + VAL)  # a test fold over all other samples
    half = stats.t(3).ppf(0.975) * np.sqrt((1 / 4 + overlap) * differences.var(ddof=1))
    assert one.interval == pytest.approx((differences.mean() - half, differences.mean() + half))
    found = sweep.answer()
    assert "4 folds, Nadeau-Bengio corrected" in found.line
    assert any("may over-cover for folds" in line for line in found.details)
    assert summary.table_of(sweep.read().jobs).count("4 folds, 8 jobs") == 2


def test_one_configuration_is_one_cross_validated_result(sweep):
    for fold, count in enumerate((150, 160, 155, 171)):
        add(sweep, "strategy=scratch", fold, count)
    found = sweep.answer()
    values = np.array([150, 160, 155, 171]) / TEST
    half = stats.t(3).ppf(0.975) * np.sqrt((1 / 4 + TEST / (TRAIN + VAL)) * values.var(ddof=1))
    low, high = (100 * end for end in (values.mean() - half, min(values.mean() + half, 1)))
    assert found.verdict == "scored"
    assert found.line.startswith(
        f"Cross-validated acc {100 * values.mean():.1f} % [{low:.1f} %, {high:.1f} %], 4 folds"
    )
    assert found.details[0].startswith(
        f"Over all 800 out-of-fold predictions together: acc {values.mean():.4f}, auroc "
    )


def test_two_folds_are_too_few_for_an_interval(sweep):
    for fold in range(2):
        add(sweep, "strategy=scratch", fold, 150 + fold, folds=2)
    assert "2 folds (too few for an interval)" in sweep.answer().line


def test_scores_are_pooled_over_all_predictions(sweep):
    for seed in range(2):
        for fold, count in enumerate((150, 170, 90)):
            add(sweep, f"strategy=scratch seed={seed}", fold, count + seed, folds=3)
    (row,) = sweep.read().rows
    found = pooled(row)
    expected = []
    for seed in range(2):
        labels = np.tile(sweep.labels, 3)
        right = np.concatenate([np.arange(TEST) < count + seed for count in (150, 170, 90)])
        predicted = np.where(right, labels, 1 - labels)
        expected.append(roc_auc_score(labels, np.where(predicted == 1, 0.8, 0.2)))
    assert found["auroc"] == pytest.approx(np.mean(expected))
    assert found["acc"] == pytest.approx((150 + 170 + 90 + 1.5) / 3 / TEST, abs=1e-9)
    assert num_tested(row) == 3 * TEST


def test_a_missing_fold_pools_nothing(sweep):
    for fold in (0, 2):
        add(sweep, "strategy=scratch", fold, 150, folds=3)
    (row,) = sweep.read().rows
    assert (pooled(row), num_tested(row)) == ({}, None)
    assert out_of_fold.write(sweep.read(), sweep.folder) is None


def test_the_file_holds_what_the_jobs_predicted(sweep):
    for fold in range(3):
        add(sweep, "optimizer.lr=1", fold, 150, folds=3, val=0.9)
        add(sweep, "optimizer.lr=2", fold, 120, folds=3, val=0.8)
    sweep.claim()
    text = publish.of_sweep(sweep.folder)
    assert text.endswith(f"out-of-fold predictions: {sweep.folder / 'predictions.parquet'}")
    found = parquet.read_table(sweep.folder / "predictions.parquet")
    assert len(found) == 6 * TEST
    assert json.loads(found.schema.metadata[b"classes"])["target"] == ["a", "b"]
    rows = found.to_pylist()
    assert {(row["configuration"], row["scored"]) for row in rows} == {
        ("optimizer.lr=1", True),
        ("optimizer.lr=2", False),
    }
    for job in sweep.read().jobs:
        own = parquet.read_table(job.path / "predictions.parquet").to_pylist()
        line = f"optimizer.lr={job.overrides['optimizer.lr']}"
        same = [r for r in rows if r["configuration"] == line and r["fold"] == int(job.overrides["data.fold"])]
        assert [{key: row[key] for key in own[0]} for row in same] == own


def nested(sweep):
    """Two rates of two strategies: validation prefers lr=1 in folds 0 and 1, lr=2 in fold 2."""
    for strategy, bonus in (("scratch", 0), ("full", 30), ("frozen", 20)):
        for rate, validated, right in ((1, (0.9, 0.8, 0.5), (100, 102, 160)), (2, (0.7, 0.7, 0.9), (160, 160, 101))):
            for fold in range(3):
                add(
                    sweep,
                    f"strategy={strategy} optimizer.lr={rate}",
                    fold,
                    right[fold] + bonus,
                    folds=3,
                    kind="nested",
                    val=validated[fold] + bonus / 1000,
                )


def test_nested_scores_what_each_fold_chose_by_its_own_validation(sweep):
    nested(sweep)
    study = sweep.read()
    (setting,) = study.settings
    scratch = setting.reference.best
    assert scratch.overrides == {"strategy": "scratch", "optimizer.lr": "1 (2), 2 (1)"}
    assert sorted(scratch.units) == sorted(n / TEST for n in (100, 102, 101))
    assert sorted(setting.procedure.best.units) == sorted(n / TEST for n in (130, 132, 131))  # full in every fold
    assert setting.comparisons[0].arm.name == "transfer chosen in each fold"
    assert setting.comparisons[0].estimate.mean == pytest.approx(30 / TEST)
    assert any("chooses among 6 configurations by its own validation: acc 65.5 %" in d for d in sweep.answer().details)


def test_a_tie_in_a_fold_is_not_broken_by_the_other_folds(sweep):
    for rate, validated in ((1, (0.8, 0.1, 0.1)), (2, (0.8, 0.9, 0.9))):
        for fold in range(3):
            add(sweep, f"optimizer.lr={rate}", fold, 100 * rate - 50, folds=3, kind="nested", val=validated[fold])
    found = chosen_by_fold(sweep.read().rows)
    by_fold = {job.results["evaluation"]["fold"]: job.overrides["optimizer.lr"] for job in found.jobs}
    assert by_fold == {0: "1", 1: "2", 2: "2"}


def test_the_page_shows_every_fold_and_its_choice(sweep):
    nested(sweep)
    sweep.claim()
    publish.of_sweep(sweep.folder)
    folds = (sweep.folder / "report" / "folds.csv").read_text().splitlines()
    assert folds[0] == "split and fold,configuration,test samples,validation,test acc"
    assert folds[3] == '"split 0, fold 2",strategy=full optimizer.lr=2,200,0.9300,0.6550'
    assert "chosen in each fold,600,0.6550" in (sweep.folder / "report" / "out_of_fold.csv").read_text()
