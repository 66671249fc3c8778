"""Baselines that adapt to unlabelled inputs of the target, against formulas written down independently in float64."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import multivariate_normal
from sklearn.linear_model import LogisticRegression

from graft.baselines.alignment import RIDGE, SHRINKAGE, Aligned, coral, optimal_transport, subspaces, z_scores
from graft.baselines.covariate_shift import LARGEST, ImportanceWeighted, density_ratio
from graft.baselines.label_shift import ESTIMATORS, MISMATCH, LabelShift, calibration
from graft.baselines.linear import Linear


def gaussians(rows=400, dims=4, seed=0):
    """Rows of two domains with other means, scales and correlations."""
    random = np.random.default_rng(seed)
    source = random.normal(size=(rows, dims)) @ (np.eye(dims) + 0.3 * random.normal(size=(dims, dims))) + 3
    target = random.normal(size=(rows // 2, dims)) @ (np.eye(dims) + 0.3 * random.normal(size=(dims, dims))) - 5
    return source, target


def standard(rows):
    return (rows - rows.mean(axis=0)) / rows.std(axis=0)


def test_z_scores_give_both_domains_mean_0_and_deviation_1_and_leave_constants_alone():
    source, target = gaussians()
    source[:, 0] = 0.1  # whose sum over rows is rounded
    alignment = z_scores(source, target)
    found = alignment.source(source)
    assert np.allclose(found[:, 1:], standard(source[:, 1:]), atol=1e-12)
    assert np.abs(found[:, 0]).max() < 1e-9
    assert np.allclose(alignment.target(target), standard(target), atol=1e-12)


def test_coral_gives_the_source_the_targets_covariance_up_to_the_regulariser():
    source, target = gaussians()
    ridge = RIDGE * np.eye(4)
    of_source, of_target = np.corrcoef(source.T), np.corrcoef(target.T)
    expected = standard(source) @ np.linalg.inv(sqrtm(of_source + ridge)) @ sqrtm(of_target + ridge)
    alignment = coral(source, target)
    assert np.allclose(alignment.source(source), expected, atol=1e-9)
    recolor = np.linalg.lstsq(standard(source), alignment.source(source), rcond=None)[0]
    assert np.allclose(recolor.T @ (of_source + ridge) @ recolor, of_target + ridge, atol=1e-9)
    assert np.allclose(alignment.target(target), standard(target))


def test_optimal_transport_pushes_the_sources_gaussian_to_the_targets():
    source, target = gaussians()
    moved = optimal_transport(source, target).source(source)
    assert np.allclose(moved.mean(axis=0), target.mean(axis=0), atol=1e-9)
    wanted, found = np.cov(target.T, bias=True), np.cov(moved.T, bias=True)
    assert np.abs(found - wanted).max() < 10 * SHRINKAGE * np.abs(wanted).max()
    a, b = (c + SHRINKAGE * np.trace(c) / 4 * np.eye(4) for c in (np.cov(source.T, bias=True), wanted))
    root = sqrtm(a)
    transport = np.linalg.inv(root) @ sqrtm(root @ b @ root) @ np.linalg.inv(root)
    assert np.allclose(moved, target.mean(axis=0) + (source - source.mean(axis=0)) @ transport, atol=1e-8)
    assert np.allclose(transport @ a @ transport, b)  # the push-forward, of the regularised covariances exactly


def test_subspaces_are_turned_as_singular_vectors_say():
    source, target = gaussians()
    source[:, 3], target[:, 3] = source[:, 0] + source[:, 1], target[:, 0] - target[:, 1]
    alignment = subspaces(source, target)
    explained = [np.cumsum(np.linalg.svd(standard(one))[1] ** 2) / one.size for one in (source, target)]
    dims = max(int((one < 0.9).sum()) + 1 for one in explained)
    assert alignment.note.startswith(f"{dims} components")
    axes = [np.linalg.svd(standard(one))[2][:dims].T for one in (source, target)]
    expected = standard(source) @ axes[0] @ axes[0].T @ axes[1] @ axes[1].T
    assert alignment.source(source).shape == (400, dims)
    back = np.linalg.lstsq(standard(target), alignment.target(target), rcond=None)[0]
    assert np.allclose(alignment.source(source) @ back.T, expected, atol=1e-6)  # without the axes' signs


@pytest.mark.parametrize("name", ["aligned_z", "aligned_coral", "aligned_subspace", "aligned_ot"])
def test_aligned_rows_undo_another_scale_and_place(name):
    random = np.random.default_rng(0)
    y = np.arange(300) % 3
    source = 3 * np.eye(3, 5)[y] + random.normal(size=(300, 5))
    target = 20 + (3 * np.eye(3, 5)[y] + random.normal(size=(300, 5))) * [4, 1, 0.3, 1, 1]
    plain, aligned = Linear(), Aligned(name, target.astype(np.float32))
    plain.fit(source, y, 3)
    aligned.fit(source.astype(np.float32), y, 3)
    assert (plain.predict(target).argmax(axis=1) == y).mean() < 0.5
    assert (aligned.predict(target.astype(np.float32)).argmax(axis=1) == y).mean() > 0.85


@pytest.mark.parametrize("name", ["aligned_z", "aligned_coral", "aligned_subspace", "aligned_ot"])
def test_fewer_rows_than_columns(name):
    random = np.random.default_rng(0)
    y = np.arange(20) % 2
    model = Aligned(name, random.normal(size=(10, 60)))
    model.fit(random.normal(size=(20, 60)) + y[:, None], y, 2)
    assert np.isfinite(model.predict(random.normal(size=(7, 60)))).all()


def drawn(priors, rows, seed):
    """Rows of three classes that overlap, in some shares."""
    random = np.random.default_rng(seed)
    y = random.choice(3, size=rows, p=priors)
    return 1.5 * np.eye(3)[y] + random.normal(size=(rows, 3)), y


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_known_shift_of_priors_is_recovered_and_corrected(name):
    x, y = drawn([0.5, 0.3, 0.2], 1500, 0)
    wanted = np.array([0.1, 0.2, 0.7])
    target, labels = drawn(wanted, 3000, 1)
    model = LabelShift(name, target)
    model.fit(x, y, 4)  # of the last class there is no row
    assert np.abs(model.target_priors[:3] - wanted).max() < 0.06
    assert model.target_priors[3] == 0
    predicted = model.predict(target)
    assert np.allclose(predicted.sum(axis=1), 1)
    plain = Linear()
    plain.fit(x, y, 4)
    assert (predicted.argmax(axis=1) == labels).mean() > 0.05 + (plain.predict(target).argmax(axis=1) == labels).mean()
    densities = np.stack([multivariate_normal(1.5 * np.eye(3)[k]).pdf(target) for k in range(3)], axis=1)
    bayes = densities * wanted / (densities * wanted).sum(axis=1, keepdims=True)
    assert np.abs(predicted[:, :3] - bayes).mean() < 0.05
    record = model.record(["a", "b", "c", "d"])
    assert record["note"].startswith("prior mismatch: ")
    assert record["priors"]["target"]["c"] == model.target_priors[2]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_equal_priors_have_no_note(name):
    x, y = drawn([0.5, 0.3, 0.2], 1500, 0)
    model = LabelShift(name, drawn([0.5, 0.3, 0.2], 3000, 1)[0])
    model.fit(x, y, 3)
    assert "note" not in model.record(["a", "b", "c"])
    assert np.abs(model.target_priors - model.source_priors).sum() < 2 * MISMATCH


def test_one_label_a_class_leaves_nothing_to_hold_out():
    model = LabelShift("label_shift_bbse", np.eye(3))
    assert "too few labels to hold out" in model.fit(np.eye(3), np.arange(3), 3)
    assert np.allclose(model.target_priors, 1 / 3, atol=0.02)


def test_calibration_repairs_a_temperature_and_a_bias():
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 3))
    truth = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (truth.cumsum(axis=1) < random.random((4000, 1))).sum(axis=1)
    wrong = np.exp(3 * logits + [0.0, 1.0, -1.0])
    wrong /= wrong.sum(axis=1, keepdims=True)
    assert np.abs(calibration(wrong, labels)(wrong) - truth).mean() < 0.02
    assert np.abs(wrong - truth).mean() > 0.1


def test_density_ratios_are_those_of_the_distributions_and_are_clipped():
    random = np.random.default_rng(0)
    source, target = random.normal(size=(4000, 1)), 1 + random.normal(size=(2000, 1))
    inside = np.abs(source[:, 0]) < 1.5
    expected = np.exp(source[:, 0] - 0.5)
    assert np.abs(density_ratio(source, target)[inside] / expected[inside] - 1).max() < 0.25
    far = 4 + random.normal(size=(400, 1))
    chosen = ImportanceWeighted(far).fit(source[:400], (source[:400, 0] > 0).astype(int), 2)
    assert f"weights clipped at {LARGEST:g} in " in chosen
    assert not chosen.endswith("effective rows 400")


def test_weights_count_as_copies_of_rows():
    x, y = drawn([0.4, 0.3, 0.3], 90, 0)
    weights = np.where(np.arange(90) % 3 == 0, 2.0, 0.5)  # of mean 1
    model = Linear()
    strength = float(model.fit(x, y, 3, weights=weights).partition(",")[0].removeprefix("C="))
    copies = np.repeat(np.arange(90), np.where(weights == 2.0, 4, 1))  # twice as many rows halve the penalty
    centred = x - x.mean(axis=0)
    rows = centred / np.sqrt(np.square(centred).sum() / 90)
    plain = LogisticRegression(C=strength / 2, tol=1e-6, max_iter=2000).fit(rows[copies], y[copies])
    assert np.abs(plain.predict_proba(rows) - model.predict(x)).max() < 0.02
    unweighted = Linear()
    unweighted.fit(x, y, 3)
    assert np.abs(unweighted.predict(x) - model.predict(x)).max() > 0.05


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_class_that_nothing_held_out_can_speak_of_leaves_finite_priors(name):
    x, y = drawn([0.5, 0.5, 0.0], 40, 0)
    y[0] = 2  # a single label: no fold that learns it can hold it out
    target = drawn([0.0, 0.0, 1.0], 40, 1)[0]
    model = LabelShift(name, target)
    model.fit(x, y, 3)
    assert model.target_priors.sum() == pytest.approx(1)
    assert np.isfinite(model.predict(target)).all()


def test_predictions_that_no_held_out_row_gets_leave_the_sources_priors():
    held, target = np.array([[0.9, 0.1]] * 4), np.array([[0.1, 0.9]] * 3)
    assert ESTIMATORS["label_shift_bbse"](held, np.array([0, 0, 0, 1]), target).tolist() == [0.75, 0.25]
