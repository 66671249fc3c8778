"""Measures of transferability against independent computations in float64, written as their papers state them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from scipy.optimize import minimize
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression

from graft.strategies.probe import PENALTIES
from graft.transferability.base import Evidence
from graft.transferability.h_score import HScore, RegularisedHScore
from graft.transferability.imagenet_accuracy import ImageNetAccuracy
from graft.transferability.knn import KNN
from graft.transferability.leep import LEEP
from graft.transferability.linear_probe import LinearProbe
from graft.transferability.logme import LogME
from graft.transferability.nce import NCE
from graft.transferability.parameter_count import ParameterCount
from graft.transferability.parc import PARC
from graft.transferability.ranking import MEASURES, cell, reasons, table, verdict


def made(samples=60, size=7, classes=3, seed=0):
    """Features that know something of the classes, and pretrained classes that know something else of them."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, 2 * samples)
    features = random.normal(size=(2 * samples, size)) + random.normal(size=(classes, size))[labels] + 2
    logits = random.normal(size=(samples, 5)) + 2 * np.eye(5)[labels[:samples]]
    source = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    train, val = slice(0, samples), slice(samples, None)
    return Evidence(features[train], labels[train], features[val], labels[val], classes, source, 3_000_000, 0.7)


def numbers(evidence):
    """The same features with numbers to predict."""
    target = evidence.features @ np.arange(evidence.features.shape[1]) + 3 * np.cos(np.arange(len(evidence.labels)))
    val = evidence.val_features @ np.arange(evidence.features.shape[1])
    return replace(evidence, labels=target, val_labels=val, num_classes=None)


def several(evidence):
    """The same features with two labels of each sample."""
    of = lambda x: np.stack([x[:, 0] > 2, x[:, 1] > 2], axis=1).astype(float)  # noqa: E731
    return replace(evidence, labels=of(evidence.features), val_labels=of(evidence.val_features), num_classes=2)


def naive_logme(features, columns):
    """The log density of the labels as a Gaussian, maximised over both variances."""
    found = []
    for y in columns.T:

        def negative(logs, y=y):
            covariance = math.exp(logs[0]) * np.eye(len(y)) + math.exp(logs[1]) * features @ features.T
            return -scipy.stats.multivariate_normal.logpdf(y, cov=covariance) / len(y)

        found.append(-min(minimize(negative, start, method="Nelder-Mead").fun for start in ((-1, -3), (-3, 0))))
    return np.mean(found)


@pytest.mark.parametrize("kind", [lambda evidence: evidence, several, numbers])
@pytest.mark.parametrize("size", [4, 40])
def test_logme_is_the_maximised_log_evidence(kind, size):
    evidence = kind(made(samples=30, size=size))
    assert LogME().value(evidence) == pytest.approx(naive_logme(evidence.features, evidence.columns), abs=2e-4)


def test_leep_and_nce_are_the_sums_of_their_papers():
    evidence = made()
    samples, zs = len(evidence.labels), range(5)
    joint = {
        (y, z): sum(evidence.source[i, z] for i in range(samples) if evidence.labels[i] == y) / samples
        for y in range(3)
        for z in zs
    }
    of_z = [sum(joint[y, z] for y in range(3)) for z in zs]
    leep = np.mean(
        [
            math.log(sum(joint[evidence.labels[i], z] / of_z[z] * evidence.source[i, z] for z in zs))
            for i in range(samples)
        ]
    )
    assert LEEP().value(evidence) == pytest.approx(leep, abs=1e-12)
    chosen = evidence.source.argmax(1)
    entropy = 0.0
    for z in set(chosen):
        counts = np.bincount(evidence.labels[chosen == z])
        entropy += (chosen == z).mean() * scipy.stats.entropy(counts)
    assert NCE().value(evidence) == pytest.approx(-entropy, abs=1e-12)


@pytest.mark.parametrize("size", [7, 90])
def test_h_scores_are_traces_of_covariances(size):
    evidence = made(size=size)
    x, y = evidence.features, evidence.labels
    means = np.stack([x[y == one].mean(0) for one in y])
    plain = np.trace(np.linalg.pinv(np.cov(x.T), rcond=1e-10) @ np.cov(means.T))
    assert HScore().value(evidence) == pytest.approx(plain, rel=1e-6)
    covariance, shrinkage = ledoit_wolf(x)
    shrunk = (1 - shrinkage) * np.trace(np.linalg.solve(covariance, np.cov(means.T, bias=True)))
    assert RegularisedHScore().value(evidence) == pytest.approx(shrunk, rel=1e-6)


def test_parc_is_spearmans_correlation_over_all_pairs():
    evidence, pairs = made(), np.tril_indices(60, -1)
    of_features = 1 - np.corrcoef(evidence.features)[pairs]
    of_labels = (1 - np.corrcoef(np.eye(3)[evidence.labels]))[pairs].round(12)
    expected = scipy.stats.spearmanr(of_features, of_labels).statistic
    assert PARC().value(evidence) == pytest.approx(expected, abs=1e-9)
    of_numbers = numbers(evidence)
    apart = np.abs(of_numbers.labels[:, None] - of_numbers.labels[None])[pairs]
    assert PARC().value(of_numbers) == pytest.approx(scipy.stats.spearmanr(of_features, apart).statistic, abs=1e-9)


def test_the_probe_is_the_best_of_scikit_learns_and_knn_asks_the_nearest():
    evidence = made()
    x = evidence.features - evidence.features.mean(0)
    scale = 1 / np.sqrt(np.square(x).sum(1).mean())
    scores = []
    for penalty in PENALTIES:
        model = LogisticRegression(C=scale**2 / (60 * penalty), tol=1e-8, max_iter=10_000).fit(x, evidence.labels)
        scores.append(model.score(evidence.val_features - evidence.features.mean(0), evidence.val_labels))
    assert LinearProbe().value(evidence) == pytest.approx(max(scores), abs=1e-9)
    same = replace(evidence, val_features=evidence.features, val_labels=evidence.labels)
    assert KNN().value(same) >= KNN().value(evidence)


@pytest.mark.parametrize("kind", [lambda evidence: evidence, several, numbers])
def test_every_measure_speaks_or_says_why_not_and_prefers_features_that_know_the_labels(kind):
    good = kind(made(samples=100, seed=1))
    noise = np.random.default_rng(2)
    bad = replace(
        good,
        features=noise.normal(size=good.features.shape),
        val_features=noise.normal(size=good.val_features.shape),
        source=None,
        imagenet=None,
    )
    cells = [cell(measure, name, one, 4) for measure in MEASURES for name, one in (("good", good), ("bad", bad))]
    for better, worse in zip(cells[::2], cells[1::2], strict=True):
        assert (better.value is None) == bool(better.reason)
        if better.value is not None and worse.value is not None and better.measure != "parameters":
            assert better.value > worse.value, better.measure
            assert better.low < better.value < better.high
    assert {"leep", "nce", "imagenet"} <= {one.measure for one in cells[1::2] if one.reason}
    if good.kind == "classes":
        assert "- leep: no pretrained head (bad)" in reasons(cells)
    rows = {row[0]: row for row in table(cells, ["good", "bad"], MEASURES).rows}
    assert rows["LEEP"][2] == "-"
    assert rows["linear probe"][1].endswith("*")
    assert "good > bad" in verdict(cells)


def test_baselines_look_at_no_sample():
    evidence = made()
    assert (ParameterCount().value(evidence), ImageNetAccuracy().value(evidence)) == (3.0, 0.7)
    assert cell(ParameterCount(), "one", evidence, 20).low is None
    assert cell(ImageNetAccuracy(), "one", replace(evidence, imagenet=None), 20).reason == "not known for these weights"


def test_an_interval_covers_what_other_samples_of_the_same_kind_read():
    found = [cell(RegularisedHScore(), "one", made(samples=200, seed=7), 20)]
    others = [RegularisedHScore().value(made_alike(seed)) for seed in range(20)]
    assert (found[0].high - found[0].low) / 2 == pytest.approx(1.96 * np.std(others), rel=0.8)


def made_alike(seed):
    """Other samples of the same classes."""
    whole = made(samples=4000, seed=7)
    return whole.subset(np.random.default_rng(seed).permutation(4000)[:200])


def test_constant_features_and_labels_give_numbers():
    constant = replace(made(), features=np.ones((60, 7)), val_features=np.ones((60, 7)))
    one_class = replace(made(), labels=np.zeros(60, dtype=int))
    for measure in MEASURES:
        for evidence in (constant, one_class):
            assert math.isfinite(measure.value(evidence)), measure.name
