import numpy as np
import pytest

from graft.baselines.boosting import GradientBoosting, chosen_columns

CATEGORIES = (None, 4)  # a number, and codes


def table(rows, seed, label):
    random = np.random.default_rng(seed)
    x = np.stack([random.normal(size=rows), random.integers(0, 4, rows)], axis=1)
    y = label(x[:, 0], x[:, 1])
    x[::10, 0] = np.nan
    return x, y


def fitted(train, num_classes, categories=CATEGORIES):
    model = GradientBoosting(categories)
    return model, model.fit(*train, num_classes)


def test_probabilities_of_classes():
    train, test = (table(200, seed, lambda age, job: ((age > 0) ^ (job == 2)).astype(int)) for seed in range(2))
    model, chosen = fitted(train, 2)
    predicted = model.predict(test[0])
    assert np.allclose(predicted.sum(axis=1), 1)
    assert (predicted.argmax(axis=1) == test[1]).mean() > 0.85
    assert chosen.startswith("trees=")
    assert chosen.endswith("by 5-fold cross-validation in the training labels")


def test_numbers():
    train, test = (table(200, seed, lambda age, job: 100 + 10 * age + 5.0 * job) for seed in range(2))
    model, _ = fitted(train, None)
    assert np.abs(model.predict(test[0]) - test[1]).mean() < 0.5 * test[1].std()


@pytest.mark.parametrize(("rows", "said"), [(2, "trees=100, fixed"), (12, "trees=")])
def test_a_small_label_budget_without_the_third_class(rows, said):
    train, test = (table(n, seed, lambda age, job: (age > 0).astype(int)) for seed, n in enumerate((rows, 30)))
    train[1][:2] = 0, 1
    model, chosen = fitted(train, 3)
    assert chosen.startswith(said)
    assert model.predict(test[0]).shape == (30, 3)
    assert (model.predict(test[0])[:, 2] == 0).all()


@pytest.mark.slow
def test_of_many_numbers_those_that_tell_the_classes_apart_are_kept():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(60, 1501)), np.arange(60) % 2
    x[:, 1400] += 4 * y
    x[0, 1400], x[:, 7], x[:, 1500] = np.nan, 1.0, 1.0  # a missing number, a constant, whose F is no number, and codes
    categories = [None] * 1500 + [3]
    chosen = chosen_columns(x, y, categories, 2)
    assert chosen[1400]
    assert chosen[1500]  # categories all stay
    assert not chosen[7]
    assert chosen.sum() == 1001
    model, _ = fitted((x, y), 2, categories)
    assert (model.predict(x).argmax(axis=1) == y).mean() > 0.9


def test_all_columns_of_an_ordinary_table_are_kept():
    x, y = table(20, 0, lambda age, job: (age > 0).astype(int))
    assert chosen_columns(x, y, CATEGORIES, 2).all()
