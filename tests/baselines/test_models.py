"""The methods on rows of numbers, without data module or config."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from graft.baselines.folds import CHOOSING, folds_of
from graft.baselines.linear import Linear
from graft.baselines.majority import Majority
from graft.baselines.neighbours import Neighbours


def blobs(rows, classes=3, dims=5, seed=0, noise=1.0):
    random = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    return 4 * np.eye(classes, dims)[y] + noise * random.normal(size=(rows, dims)), y


@pytest.mark.parametrize("model", [Linear(), Neighbours("euclidean"), Neighbours()])
def test_classes(model):
    x, y = blobs(90)
    chosen = model.fit(x, y, 4)  # of the last class there is no training row
    predicted = model.predict(blobs(60, seed=1)[0])
    assert "5-fold cross-validation in the training labels" in chosen
    assert predicted.shape == (60, 4)
    assert np.allclose(predicted.sum(axis=1), 1)
    assert (predicted[:, 3] == 0).all()
    assert (predicted.argmax(axis=1) == blobs(60, seed=1)[1]).mean() > 0.9


@pytest.mark.parametrize("model", [Linear(), Neighbours("euclidean")])
def test_numbers(model):
    x = np.random.default_rng(0).normal(size=(200, 3))
    y = 100 + 5 * x[:, 0]
    model.fit(x[:150], y[:150], None)
    assert np.abs(model.predict(x[150:]) - y[150:]).mean() < 0.6 * np.abs(y - y.mean()).mean()


@pytest.mark.parametrize("model", [Linear(), Neighbours("euclidean"), Majority()])
def test_several_labels_one_of_which_never_varies(model):
    x, y = blobs(60)
    labels = np.stack([y == 0, y > 0, np.zeros(60)], axis=1).astype(np.float32)
    model.fit(x, labels, 3)
    predicted = model.predict(x)
    assert predicted.shape == (60, 3)
    assert (predicted[:, 2] == 0).all()
    if not isinstance(model, Majority):
        assert ((predicted > 0.5) == labels).mean() > 0.9


def test_the_majority_says_shares_and_of_numbers_the_median():
    rows = np.zeros((3, 1))
    model = Majority()
    model.fit(rows, np.array([1, 1, 0]), 2)
    assert np.allclose(model.predict(np.zeros((2, 1))), [[1 / 3, 2 / 3]] * 2)
    model.fit(rows, np.array([1.0, 2.0, 9.0]), None)
    assert (model.predict(np.zeros((2, 1))) == 2).all()


def test_the_penalty_follows_the_labels_inside_training():
    """Labels that are noise get the strongest penalty, labels that follow from the rows a weak one."""
    x, y = blobs(90, noise=0.1)
    clear, noise = Linear().fit(x, y, 3), Linear().fit(x, np.random.default_rng(1).permutation(y), 3)
    assert noise.startswith("C=0.1,")
    assert not clear.startswith("C=0.1,")


@pytest.mark.parametrize(("per_class", "folds"), [(1, 0), (2, 2), (4, 4), (50, 5), (400, 3), (4000, 3)])
def test_folds_follow_the_number_of_labels(per_class, folds):
    y = np.repeat(np.arange(3), per_class)
    found = folds_of(y, 3)
    assert len(found) == folds
    for kept, held in found:
        assert not set(kept) & set(held)
        assert len(kept) + len(held) == min(3 * per_class, CHOOSING)
        assert set(y[kept]) == set(y[held]) == {0, 1, 2}


def test_one_label_a_class_chooses_nothing():
    x, y = blobs(3)
    assert Linear().fit(x, y, 3) == "C=10, fixed: too few labels to hold out"
    assert Neighbours().fit(x, y, 3).startswith("neighbours=1, fixed")


def test_a_single_class_is_always_said():
    x, _ = blobs(10)
    model = Linear()
    model.fit(x, np.ones(10, dtype=int), 3)
    assert (model.predict(x)[:, 1] == 1).all()


def test_more_columns_than_rows_are_turned_without_a_change_of_what_is_predicted():
    x, y = blobs(30, dims=200)
    model = Linear()
    strength = float(model.fit(x, y, 3).partition(",")[0].removeprefix("C="))
    centred = x - x.mean(axis=0)
    scale = 1 / np.sqrt(np.square(centred).sum() / len(x))
    plain = LogisticRegression(C=strength, tol=1e-6, max_iter=2000).fit(centred * scale, y)
    assert np.abs(model.predict(x) - plain.predict_proba(centred * scale)).max() < 0.02


def test_sparse_rows():
    x, y = blobs(60, noise=0.2)
    x[x < 1] = 0
    for model in (Linear(), Neighbours()):
        model.fit(sparse.csr_matrix(x), y, 3)
        assert (model.predict(sparse.csr_matrix(x)).argmax(axis=1) == y).mean() > 0.9
