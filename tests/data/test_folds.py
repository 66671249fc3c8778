"""Folds: disjoint, complete, balanced, whole groups, past before future; and the same whatever is trained."""

import pytest
import torch

from graft.data.finish import check_folds
from graft.data.folds import Fold, group_folds, grouped_folds, time_folds
from graft.data.samples import generator
from graft.errors import GraftError
from tests.data.test_finish import Rows, sides, words

LABELS = ["a"] * 50 + ["b"] * 31 + ["c"] * 19


def rows(number=100, labels=LABELS, columns=None, **settings):
    return Rows({"train": (words(number), labels, columns or {})}, **settings)


def of_folds(make, folds, evaluation="kfold", seed=0):
    return [sides(make().load(seed, Fold(evaluation, number, folds))) for number in range(folds)]


@pytest.mark.parametrize("folds", [2, 3, 7])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_sample_is_tested_once_and_never_learned_from_there(folds, seed):
    found = of_folds(rows, folds, seed=seed)
    assert all(not (one["test"] & (one["train"] | one["val"])) and not one["train"] & one["val"] for one in found)
    assert all(len(one["train"] | one["val"] | one["test"]) == 100 for one in found)
    assert sorted(text for one in found for text in one["test"]) == sorted(words(100))
    assert all(one["val"] for one in found)


def test_classes_keep_their_shares_in_every_fold():
    for one in of_folds(rows, 5):
        counts = [sum(LABELS[int(text.split()[1])] == name for text in one["test"]) for name in "abc"]
        assert counts[0] == 10
        assert counts[1] in (6, 7)
        assert counts[2] in (3, 4)


def test_the_split_seed_decides_and_nothing_else():
    first, again, other = (of_folds(rows, 4, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert of_folds(lambda: rows(val_fraction=0.4), 4)[2]["test"] == first[2]["test"]  # nor what validates
    assert of_folds(rows, 4, "nested")[1] == first[1]


def test_a_group_is_in_one_fold_and_on_one_side():
    people = [f"p{n % 23}" for n in range(100)]
    for one in of_folds(lambda: rows(columns={"person": people}, split={"group": "person"}, val_fraction=0.3), 4):
        owners = [{people[int(text.split()[1])] for text in side} for side in one.values()]
        assert sum(map(len, owners)) == len(set.union(*owners)) == 23


def test_copies_are_in_one_fold():
    texts = [f"text {n // 2}" for n in range(100)]
    for one in of_folds(lambda: Rows({"train": (texts, ["a", "a", "b", "b"] * 25)}), 5):
        assert not one["test"] & (one["train"] | one["val"])


@pytest.mark.parametrize("seed", range(5))
def test_groups_of_any_size_are_spread_by_class(seed):
    draw = generator("groups", seed)
    groups, labels = torch.randint(0, 60, (600,), generator=draw), torch.randint(0, 4, (600,), generator=draw)
    folds = grouped_folds(labels, groups, 5, seed)
    assert torch.cat(folds).sort().values.equal(torch.arange(600))
    assert sum(len(groups[fold].unique()) for fold in folds) == len(groups.unique())
    counts = torch.stack([labels[fold].bincount(minlength=4) for fold in folds]).double()
    assert (counts / counts.mean(0)).sub(1).abs().max() < 0.25  # a group is a sixtieth


def test_folds_by_time_learn_from_the_past_alone():
    days = [str(n // 3) for n in range(100)]  # three samples a day, which stay together
    found = of_folds(lambda: rows(labels=["a", "b"] * 50, columns={"day": days}, split={"time": "day"}), 4)
    of_day = [{name: {int(days[int(text.split()[1])]) for text in side} for name, side in one.items()} for one in found]
    for one in of_day:
        assert max(one["train"]) < min(one["val"])
        assert max(one["val"]) < min(one["test"])
    tested = [day for one in of_day for day in sorted(one["test"])]
    assert tested == list(range(tested[0], 34))  # all but the first part, once and in order
    assert (
        "later than the fold"
        in rows(labels=["a", "b"] * 50, columns={"day": days}, split={"time": "day"})
        .load(0, Fold("kfold", 0, 4))
        .report.sentence()
    )


def test_equal_times_are_never_on_both_sides():
    times = torch.tensor([1.0] * 5 + [2.0] * 30 + [3.0] * 5 + [4.0] * 20)
    for before, fold in time_folds(times, 3):
        if len(before) and len(fold):
            assert times[before].max() < times[fold].min()


def test_each_group_is_left_out_once():
    sites = [f"s{n % 4}" for n in range(100)]

    def make():
        return rows(columns={"site": sites}, split={"group": "site"}, val_fraction=0.34)

    found = of_folds(make, 4, "leave_one_group_out")
    for number, one in enumerate(found):
        assert {sites[int(text.split()[1])] for text in one["test"]} == {f"s{number}"}
        assert len(one["test"]) == 25
    assert check_folds(make(), 0, "leave_one_group_out", None) == 4
    assert [name for name, _ in group_folds(["b", "a", "b"])] == ["a", "b"]


def test_numbers_have_folds_of_one_size():
    make = lambda: rows(labels=[str(n) for n in range(100)], label_kind="numbers")  # noqa: E731
    assert [len(one["test"]) for one in of_folds(make, 3)] == [34, 33, 33]


@pytest.mark.parametrize(
    ("make", "evaluation", "folds", "message"),
    [
        (rows, "kfold", 20, r"folds=20: every fold needs the class 'c', .* only 19 texts\. Use folds=19 or less"),
        (lambda: rows(3, ["a", "a", "b"]), "kfold", 2, "'b', of which there are only 1 texts. No number of folds"),
        (rows, "leave_one_group_out", None, r"has no groups\. .*data\.target\.split\.group="),
        (
            lambda: rows(columns={"site": ["x"] * 100}, split={"group": "site"}),
            *("leave_one_group_out", None, "has 1 groups, and one is left out"),
        ),
        (
            lambda: rows(columns={"site": ["x", "y"] * 50}, split={"group": "site"}),
            *("leave_one_group_out", 3, r"has 2 groups, and data\.folds=3"),
        ),
        (
            lambda: rows(columns={"day": ["1"] * 100}, split={"time": "day"}),
            *("kfold", 3, "too few different times"),
        ),
        (lambda: rows(columns={"day": LABELS}, split={"time": "day"}), "repeated", 3, "no randomness to repeat"),
        (
            lambda: rows(
                labels=["a"] * 60 + ["b"] * 40, columns={"day": [str(n) for n in range(100)]}, split={"time": "day"}
            ),
            *("kfold", 3, r"data\.fold=0 of 3 folds: .*every label is 'a'"),
        ),
        (
            lambda: Rows({"train": (words(20), ["a", "b"] * 10), "test": (["x", "y"], ["a", "b"])}),
            *("kfold", 2, "has an official test split, .* stays whole"),
        ),
    ],
)
def test_folds_that_are_of_no_use_are_refused(make, evaluation, folds, message):
    domain = make()
    domain.key = "data.target"
    with pytest.raises(GraftError, match=message):
        check_folds(domain, 0, evaluation, folds)


def test_an_official_validation_split_stays():
    splits = {"train": (words(100), LABELS), "val": (["v 1", "v 2"], ["a", "b"])}
    found = of_folds(lambda: Rows(splits), 5)
    assert all(one["val"] == {"v 1", "v 2"} for one in found)
    assert [len(one["test"]) for one in found] == [20] * 5
