import pytest
import torch

from graft.baselines.boosting import GradientBoosting, chosen_columns
from graft.data.samples import Split
from graft.inputs.columns import Column, Columns
from graft.inputs.table import TableRows

COLUMNS = Columns([Column("age", "numeric"), Column("job", "categorical", ("cook", "smith"))])


def split(rows, seed, label):
    random = torch.Generator().manual_seed(seed)
    numbers, codes = torch.randn(rows, 1, generator=random), torch.randint(0, 4, (rows, 1), generator=random)
    numbers[::10] = torch.nan
    return Split(TableRows(COLUMNS, numbers, codes), label(numbers.nan_to_num()[:, 0], codes[:, 0]), f"split{seed}")


def test_probabilities_of_classes():
    splits = [split(200, seed, lambda age, job: ((age > 0) ^ (job == 2)).long()) for seed in range(3)]
    predicted = GradientBoosting().predictions(*splits, 2, 0)
    assert torch.allclose(predicted.sum(dim=1), torch.ones(200))
    assert (predicted.argmax(dim=1) == splits[2].labels).float().mean() > 0.9


def test_numbers():
    splits = [split(200, seed, lambda age, job: 100 + 10 * age + 5.0 * job) for seed in range(3)]
    predicted = GradientBoosting().predictions(*splits, None, 0)
    assert (predicted - splits[2].labels).abs().mean() < 0.5 * splits[2].labels.std()


@pytest.mark.parametrize("rows", [4, 12])
def test_a_small_label_budget(rows):
    train, val, test = (split(n, seed, lambda age, job: (age > 0).long()) for seed, n in enumerate((rows, 30, 30)))
    train.labels[:2] = torch.tensor([0, 1])
    assert GradientBoosting().predictions(train, val, test, 2, 0).shape == (30, 2)


def test_of_many_numbers_those_that_tell_the_classes_apart_are_kept():
    columns = Columns([*(Column(f"g{i}", "numeric") for i in range(1500)), COLUMNS.all[1]])
    random = torch.Generator().manual_seed(0)
    numbers, labels = torch.randn(60, 1500, generator=random), torch.arange(60) % 2
    numbers[:, 1400] += 4 * labels
    numbers[0, 1400], numbers[:, 7] = torch.nan, 1.0  # a missing number, and a constant column, whose F is no number
    one = Split(TableRows(columns, numbers, torch.full((60, 1), 2)), labels, "one")
    chosen = chosen_columns(one, 2)
    assert chosen[1400]
    assert chosen[1500]  # categories all stay
    assert not chosen[7]
    assert chosen.sum() == 1001
    assert (GradientBoosting().predictions(one, one, one, 2, 0).argmax(dim=1) == labels).float().mean() > 0.9


def test_all_columns_of_an_ordinary_table_are_kept():
    assert chosen_columns(split(20, 0, lambda age, job: (age > 0).long()), 2).all()
