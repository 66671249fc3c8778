"""Scores by class and slice: which samples a slice holds, and its interval."""

import numpy as np
import pytest
import torch

from graft.data.samples import DomainData, Split
from graft.data.slices import check_slices, slice_names, slice_values
from graft.errors import GraftError
from graft.inputs.columns import MISSING, UNKNOWN, Column, Columns
from graft.inputs.table import TableRows
from graft.report.slices import groups_of, scores_by_slice


def rows(table):
    return {(row[0], row[1]): row[2:] for row in table.rows}


@pytest.fixture
def found():
    """60 samples, right but for every third of speaker bob."""
    labels = ["a", "b"] * 30
    speakers = ["ann"] * 40 + ["bob"] * 20
    wrong = [speaker == "bob" and number % 3 == 0 for number, speaker in enumerate(speakers)]
    predicted = [("b" if label == "a" else "a") if bad else label for label, bad in zip(labels, wrong, strict=True)]
    probabilities = np.array([[0.9, 0.1] if one == "a" else [0.1, 0.9] for one in predicted])
    return {
        **{"label": labels, "prediction": predicted, "probabilities": probabilities, "classes": ["a", "b"]},
        "slice speaker": speakers,
        "slice length": [float(number) for number in range(59)] + [None],
    }


def test_each_class_and_slice_has_its_score_and_wilsons_interval(found):
    table = scores_by_slice(found, "acc")
    samples, score, interval = rows(table)["speaker", "bob"]
    assert (samples, score) == ("20", "0.700")
    # the ends solve (p - f)^2 = z^2 p (1 - p) / n
    z, n, f = 1.959963984540054, 20, 0.7
    ends = sorted(np.roots([1 + z**2 / n, -2 * f - z**2 / n, f**2]))
    assert interval == "{:.3f} to {:.3f}".format(*ends)
    assert rows(table)["speaker", "ann"][1] == "1.000"
    assert {key for key in rows(table) if key[0] == "class"} == {("class", "a"), ("class", "b")}
    assert "Fewer than 30 samples: length=missing (1), length=30 to 43 (14)" in table.caption
    assert table.caption.endswith("and 1 more.")


def test_many_different_numbers_are_divided_at_quartiles(found):
    groups = dict(groups_of(found["slice length"]))
    assert {name: len(chosen) for name, chosen in groups.items()} == {
        **{"0 to 14": 15, "15 to 29": 15, "30 to 43": 14, "44 to 58": 15},
        "missing": 1,
    }
    assert [name for name, _ in groups_of([3.0, 1.0, 10.0, 1.0])] == ["1", "3", "10"]


def test_numbers_have_a_bootstrap_interval_and_no_classes():
    errors = np.arange(40) / 10
    found = {"label": [0.0] * 40, "prediction": errors.tolist(), "classes": None, "slice kind": ["x", "y"] * 20}
    table = scores_by_slice(found, "mae")
    samples, score, interval = rows(table)["kind", "y"]
    assert (samples, float(score)) == ("20", pytest.approx(errors[1::2].mean()))
    low, high = map(float, interval.split(" to "))
    assert low < errors[1::2].mean() < high
    assert scores_by_slice({key: found[key] for key in ("label", "prediction", "classes")}, "mae") is None


def domain(split, modality, **more):
    return DomainData("toy", split, split, split, None, None, "", modality=modality, **more)


def test_columns_of_tables_and_lengths_of_texts_are_slices():
    columns = Columns([Column("age", "numeric", mean=40.0, std=10.0), Column("job", "categorical", ("cook",))])
    table = TableRows(columns, torch.tensor([[1.0], [float("nan")], [0.0]]), torch.tensor([[2], [MISSING], [UNKNOWN]]))
    found = domain(Split(table, None, "", columns={"visit": ["1", "2", "3"]}), "table")
    assert slice_names(found) == ["visit", "age", "job"]
    assert slice_values(["age", "job", "visit"], found) == {
        **{"age": [50.0, None, 40.0], "job": ["cook", None, None]},
        "visit": [1.0, 2.0, 3.0],
    }
    texts = domain(Split(["one two", "three"], None, ""), "text")
    assert slice_values(["length"], texts) == {"length": [2, 1]}
    with pytest.raises(GraftError, match=r"report.slices=\[speaker\].*These data have: length"):
        check_slices(["length", "speaker"], texts)
    with pytest.raises(GraftError, match="nothing to slice by"):
        check_slices(["speaker"], domain(Split(torch.zeros(1, 1, 2, 2), None, ""), "image"))
