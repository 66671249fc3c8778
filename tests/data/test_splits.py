import pytest
import torch

from graft.data.samples import group_numbers
from graft.data.splits import label_budget, stratified_split
from graft.errors import GraftError

LABELS = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
CLASSES = ("a", "b", "c")


def test_parts_are_disjoint_complete_and_stratified():
    splits = stratified_split(LABELS, {"test": 0.3, "val": 10}, seed=0)
    assert {name: len(split) for name, split in splits.items()} == {"train": 60, "test": 30, "val": 10}
    assert torch.cat(list(splits.values())).sort().values.equal(torch.arange(100))
    assert LABELS[splits["test"]].bincount().tolist() == [15, 9, 6]
    assert LABELS[splits["val"]].bincount().tolist() == [5, 3, 2]


def test_the_seed_decides():
    first, again, other = (stratified_split(LABELS, {"test": 0.3}, seed)["test"] for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)


def test_copies_stay_on_one_side_even_when_labels_conflict():
    contents = [bytes([i // 2]) for i in range(100)]  # pairs of copies
    labels = torch.arange(100) % 2  # and every pair has two labels
    groups = group_numbers(contents)
    splits = stratified_split(labels, {"test": 0.3, "val": 0.2}, 0, groups)
    sides = [set(groups[split].tolist()) for split in splits.values()]
    assert sum(len(side) for side in sides) == len(set.union(*sides)) == 50
    assert sorted(map(len, splits.values())) == [20, 30, 50]


def test_every_class_keeps_a_training_sample():
    labels = torch.tensor([0] * 20 + [1, 2, 2])
    for seed in range(5):
        assert set(labels[stratified_split(labels, {"test": 0.5, "val": 0.4}, seed)["train"]].tolist()) == {0, 1, 2}


def test_budget_takes_the_same_number_of_every_class_and_is_nested():
    small = label_budget(LABELS, 5, 0, CLASSES, "data.labels_per_class")
    large = label_budget(LABELS, 20, 0, CLASSES, "data.labels_per_class")
    assert LABELS[small].bincount().tolist() == [5, 5, 5]
    assert set(small.tolist()) < set(large.tolist())
    assert not small.equal(label_budget(LABELS, 5, 1, CLASSES, "data.labels_per_class"))


def test_budget_that_a_class_cannot_fill_names_it():
    with pytest.raises(GraftError, match=r"labels_per_class=21: class 'c' has only 20 .*labels_per_class=20 or less"):
        label_budget(LABELS, 21, 0, CLASSES, "data.labels_per_class")


def test_samples_that_belong_to_no_group_are_split_as_groups_of_one():
    labels = torch.tensor([0] * 50 + [1] * 7 + [4])[torch.randperm(58, generator=torch.Generator().manual_seed(0))]
    for sizes in ({"test": 0.2, "val": 0.1}, {"val": 9}, {"test": 0.9, "val": 0.05}):
        alone = stratified_split(labels, sizes, 3)
        grouped = stratified_split(labels, sizes, 3, torch.arange(58))
        assert {name: part.tolist() for name, part in alone.items()} == {n: p.tolist() for n, p in grouped.items()}
