"""What becomes of samples after a source has read them: labels, bad samples, copies, leaks, splits, report."""

import pytest
import torch

from graft.data.domain import Domain
from graft.data.samples import Raw, Samples
from graft.data.sources.text_file import TextFile
from graft.data.splits import time_split
from graft.errors import GraftError


class Rows(Domain):
    """Texts that are given, as a source would read them."""

    modality, noun, unit, title = "text", "texts", "rows", "rows"
    advice = "Name another column."

    def __init__(self, splits, left_out=None, places=None, near=False, classes=None, **settings):
        super().__init__(**settings)
        self.splits, self.reasons, self.places, self.near = splits, left_out or {}, places, near
        self.classes = classes

    def read(self):
        return Raw({name: self._samples(name, *rows) for name, rows in self.splits.items()}, self.classes)

    def _samples(self, name, texts, labels, columns=None):
        places = [f"{name}.csv, row {n + 2}" for n in range(len(texts))] if self.places is None else self.places
        return Samples(list(texts), labels, places, list(texts), columns=columns or {}, left_out=self.reasons)

    def near_keys(self, splits):
        return {name: [text.lower() for text in one.inputs] for name, one in splits.items()} if self.near else None


def words(number):
    return [f"text {n}" for n in range(number)]


def taken(split):
    return [split.inputs[index] for index in range(len(split))]


def sides(data):
    return {name: set(taken(getattr(data, name))) for name in ("train", "val", "test")}


def test_samples_of_one_group_stay_on_one_side():
    people = [f"p{n % 12}" for n in range(120)]
    labels = [str(n % 2) for n in range(120)]
    rows = {"train": (words(120), labels, {"person": people})}
    for seed in range(3):
        data = Rows(rows, split={"group": "person"}).load(seed)
        of = [{people[int(text.split()[1])] for text in side} for side in sides(data).values()]
        assert sum(map(len, of)) == len(set.union(*of)) == 12
        assert all(of)
        assert "split by person, 12 groups" in data.report.sentence("texts")
        assert not any("by their person" in note for note in data.notes)


def test_a_group_may_be_what_an_expression_finds_in_the_file():
    places = [f"scans/patient{n % 10}_{n}.png" for n in range(60)]
    data = Rows({"train": (words(60), ["a", "b", "c"] * 20)}, places=places, split={"group": r"(patient\d+)_"}).load(0)
    of = [{int(text.split()[1]) % 10 for text in side} for side in sides(data).values()]
    assert sum(map(len, of)) == len(set.union(*of)) == 10


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"group": "(patient"}, r"split\.group=\(patient: this is no regular expression"),
        ({"group": r"(case\d+)"}, r"split\.group=.*: it finds nothing in patient_0\.png"),
        ({"time": "date"}, r"split\.time=date: there is no such column"),
    ],
)
def test_a_rule_that_finds_nothing_is_refused(split, message):
    places = [f"patient_{n}.png" for n in range(20)]
    with pytest.raises(GraftError, match=message):
        Rows({"train": (words(20), ["a", "b"] * 10)}, places=places, split=split).load(0)


def test_groups_and_copies_are_joined():
    texts = words(40)
    texts[1] = texts[2] = texts[0]  # one text of three people: all that they wrote belongs together
    people = [f"p{n % 20}" for n in range(40)]
    rows = {"train": (texts, ["a", "b"] * 20, {"person": people})}
    for seed in range(5):
        data = Rows(rows, split={"group": "person"}, val_fraction=0.3, test_fraction=0.3).load(seed)
        together = {texts[0], *(f"text {n}" for n in (20, 21, 22))}
        assert sum(bool(together & side) for side in sides(data).values()) == 1


def test_groups_of_official_splits_that_train_has_too_are_noted():
    rows = {
        "train": (words(40), ["a", "b"] * 20, {"person": ["p1", "p2"] * 20}),
        "val": (["v1", "v2"], ["a", "b"], {"person": ["p3", "p4"]}),
        "test": (["t1", "t2", "t3"], ["a", "b", "a"], {"person": ["p1", "p9", "p2"]}),
    }
    data = Rows(rows, split={"group": "person"}).load(0)
    assert "2 texts, by their person, of test are in train too" in data.notes
    assert not any("of val" in note for note in data.notes)


@pytest.mark.parametrize(
    "times",
    [
        [*range(100)],
        [str(n) for n in range(100)],
        [f"2024-{1 + n // 28:02}-{1 + n % 28:02}" for n in range(100)],
        [f"2024-01-01T{n // 60:02}:{n % 60:02}:00Z" for n in range(100)],
    ],
    ids=["numbers", "words", "dates", "minutes"],
)
def test_the_latest_are_test_and_those_before_validation(times):
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0)).tolist()
    rows = {"train": ([f"text {n}" for n in order], [str(n % 2) for n in order], {"when": [times[n] for n in order]})}
    data = Rows(rows, split={"time": "when"}, val_fraction=0.2, test_fraction=10).load(0)
    number = {name: sorted(int(text.split()[1]) for text in side) for name, side in sides(data).items()}
    assert number == {"train": [*range(70)], "val": [*range(70, 90)], "test": [*range(90, 100)]}
    assert "split by time, when" in data.report.sentence("texts")


def test_equal_times_stay_together():
    indices = time_split(torch.tensor([1.0, 2, 3, 4, 4, 4, 5, 6]), {"test": 3, "val": 2})
    assert {name: index.tolist() for name, index in indices.items()} == {
        "train": [0, 1, 2],
        "val": [3, 4, 5],  # more than 2, as it would have none otherwise
        "test": [6, 7],
    }


def test_a_time_that_is_none_is_named():
    rows = {"train": (words(20), ["a", "b"] * 10, {"when": ["2024-01-01"] * 19 + ["soon"]})}
    with pytest.raises(
        GraftError, match=r"split\.time=when: train\.csv, row 21: 'soon' is neither a number nor a date"
    ):
        Rows(rows, split={"time": "when"}).load(0)


def test_spellings_of_one_label_are_one_class_with_a_note():
    labels = ["0", "0.0", "1", "1.00", " 1", "+1", "0"] * 10
    data = Rows({"train": (words(70), labels)}).load(0)
    assert data.classes == ("0", "1")
    assert "labels '0' (20) and '0.0' (10) count as one class, '0'" in data.notes


def test_spellings_that_may_mean_different_things_stay_apart():
    labels = ["Cat", "cat", "007", "7"] * 20
    data = Rows({"train": (words(80), labels)}).load(0)
    assert set(data.classes) == {"Cat", "cat", "007", "7"}
    assert data.notes == ("labels 'Cat' and 'cat' differ in case alone, and are different classes here",)


def test_odd_blanks_and_forms_are_one_spelling():
    data = Rows({"train": (words(40), ["big cat", "big\u00a0cat", "\uff42\uff49\uff47 cat", "dog"] * 10)}).load(0)
    assert data.classes == ("big cat", "dog")


def test_labels_that_are_numbers_and_those_that_are_none():
    labels = ["1.5", "-2", "1e3", 4, 2.25] * 8
    data = Rows({"train": (words(40), labels)}, label_kind="numbers").load(0)
    assert data.classes is None
    found = torch.cat([data.train.labels, data.val.labels, data.test.labels]).tolist()
    assert sorted(set(found)) == [-2, 1.5, 2.25, 4, 1000]
    for bad, problem in {"many": "'many' is no number", None: "is missing", "inf": "'inf' is no number"}.items():
        rows = {"train": (words(41), [*labels, bad])}
        with pytest.raises(GraftError, match=rf"1 of 41 rows cannot be used \(train\.csv, row 42: its label {problem}"):
            Rows(rows, label_kind="numbers").load(0)
        assert len(Rows(rows, label_kind="numbers", on_bad_sample="skip").load(0).report.skipped) == 1


def test_several_labels_are_separated_or_listed():
    labels = ["a|b", "b", "", ["a"], ["b", "c"], ["c"]] * 10
    data = Rows({"train": (words(60), labels)}, label_kind="multilabel").load(0)
    assert data.classes == ("a", "b", "c")
    expected = {0: [1, 1, 0], 1: [0, 1, 0], 2: [0, 0, 0], 3: [1, 0, 0], 4: [0, 1, 1], 5: [0, 0, 1]}
    for split in (data.train, data.val, data.test):
        for text, label in zip(taken(split), split.labels.tolist(), strict=True):
            assert label == expected[int(text.split()[1]) % 6]
    assert "10 texts have none of the labels" in data.notes
    assert sum(map(len, (data.train, data.val, data.test))) == 60


def test_a_rare_combination_of_labels_does_not_keep_splits_empty():
    labels = ["|".join(f"l{k}" for k in range(8) if (n + 1) >> k & 1) for n in range(255)]  # every combination once
    data = Rows({"train": (words(255), labels)}, label_kind="multilabel", val_fraction=0.2, test_fraction=0.2).load(0)
    assert [len(split) for split in (data.train, data.val, data.test)] == [153, 51, 51]
    assert data.test.labels.sum(0).min() > 10


def test_a_label_that_only_test_has_is_a_bad_sample():
    rows = {"train": (words(40), ["a|b", "a"] * 20), "test": (["x", "y"], ["a", "a|z"])}
    with pytest.raises(GraftError, match=r"test\.csv, row 3: its label 'z' is not one of train's classes: a, b"):
        Rows(rows, label_kind="multilabel").load(0)
    data = Rows(rows, label_kind="multilabel", on_bad_sample="skip").load(0)
    assert "test has no sample of b: its AUROC does not exist" in data.notes


def test_classes_that_a_split_lacks_are_named():
    rows = {"train": (words(60), ["a", "b", "c"] * 20), "test": (["x", "y"], ["c", "a"]), "val": (["z"], ["b"])}
    notes = Rows(rows).load(0).notes
    assert "test has no sample of b: its AUROC is the mean over the others" in notes
    assert "val has no sample of a, c: its AUROC does not exist" in notes


@pytest.mark.parametrize(("val", "test"), [(0.6, 0.6), (0.5, 0.5), (0.9, 0.1)])
def test_fractions_that_leave_nothing_are_refused(val, test):
    with pytest.raises(GraftError, match=rf"val_fraction={val:g}.*nothing to train on.*val_fraction=0\.15"):
        Rows({"train": (words(40), ["a", "b"] * 20)}, val_fraction=val, test_fraction=test).load(0)


def test_every_skipped_sample_and_what_was_left_out_is_reported():
    labels = ["a", "b"] * 20 + [None] * 5
    rows = Rows({"train": (words(45), labels)}, on_bad_sample="skip", left_out={".txt files": 3, "hidden files": 1})
    report = rows.load(0).report
    assert report.found == 49
    assert [bad["sample"] for bad in report.skipped] == [f"train.csv, row {n}" for n in range(42, 47)]
    assert {bad["reason"] for bad in report.skipped} == {"its label is missing"}
    assert report.sentence("files") == (
        "49 files found, 40 used (28 train, 6 val, 6 test; random, stratified split); "
        "9 left out (3 .txt files, 1 hidden files, 5 skipped)"
    )


def test_a_split_of_which_everything_is_skipped_says_why():
    rows = {"train": (words(40), ["a", "b"] * 20), "val": (["v"], ["c"])}
    with pytest.raises(
        GraftError, match=r"no rows that can be used for val \(val\.csv, row 2: its label 'c' is not one"
    ):
        Rows(rows, on_bad_sample="skip").load(0)


def test_one_class_is_named_before_the_split_is_tried():
    with pytest.raises(GraftError, match=r"every label is 'a', but at least 2 classes"):
        Rows({"train": (words(3), ["a"] * 3)}).load(0)


def test_near_duplicates_are_counted_or_kept_together():
    texts = [f"{'Text' if n % 2 else 'text'} {n // 2}" for n in range(80)]  # pairs that differ in case alone
    rows = {"train": (texts, ["a", "a", "b", "b"] * 20)}
    data = Rows(rows, near=True).load(0)
    assert any("of test look like one of train (near duplicates)" in note for note in data.notes)
    data = Rows(rows, near=True, split={"near_duplicates": "group"}).load(0)
    of = [{text.lower() for text in side} for side in sides(data).values()]
    assert sum(map(len, of)) == len(set.union(*of)) == 40
    assert data.notes == ()
    assert Rows(rows, near=True, split={"near_duplicates": "ignore"}).load(0).notes == ()


def test_near_duplicates_of_texts_are_those_without_case_and_punctuation(tmp_path):
    lines = [f"A fine film, no. {n}!\t{n % 2}" for n in range(40)] + [f"a fine film no {n}\t{n % 2}" for n in range(40)]
    (tmp_path / "a.tsv").write_text("text\tlabel\n" + "\n".join(lines))
    file = str(tmp_path / "a.tsv")
    notes = TextFile(file).load(0).notes
    assert any("texts of test look like one of train (near duplicates)" in note for note in notes)
    assert TextFile(file, split={"near_duplicates": "group"}).load(0).notes == ()
