import os
import re
import sys
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import pytest
import torch
from omegaconf import OmegaConf
from pyarrow import csv, parquet

from graft.data.readers.counts import with_shares
from graft.data.readers.table import Table
from graft.data.samples import rows_of
from graft.data.sources.sklearn_table import SklearnTable
from graft.data.sources.table_file import TableFile
from graft.errors import GraftError
from graft.inputs.table import TableTransform

HEADER = "age,job,flag,same,outcome\n"
JOBS = ("cook", "smith", "")


def lines(rows=60, first=0):
    return [f"{20 + i},{JOBS[i % 3]},{i % 2},7,{'yes' if i % 4 else 'no'}" for i in range(first, first + rows)]


@pytest.fixture
def table(tmp_path):
    """A table file with these lines, read and split."""

    def table(content=None, name="people.csv", written_as="utf-8", **settings):
        path = tmp_path / name
        path.write_text(HEADER + "\n".join(lines()) if content is None else content, encoding=written_as)
        return TableFile(str(path), **{"label": "outcome", **settings})

    return table


def loaded(domain, seed=0):
    data = domain.load(seed)
    return data, data.backbone_arguments["columns"]


def test_columns_follow_from_the_training_rows(table):
    data, columns = loaded(table())
    assert [(c.name, c.kind) for c in columns.all] == [
        ("age", "numeric"),
        ("job", "categorical"),
        ("flag", "categorical"),
    ]
    assert columns.categorical[0].categories == ("cook", "smith")
    assert data.modality == "table"
    assert data.classes == ("no", "yes")
    assert any("constant in training: same" in note for note in data.notes)
    assert [len(split) for split in (data.train, data.val, data.test)] == [42, 9, 9]


def test_keys_decide_over_values(table):
    _, columns = loaded(table(numeric=["flag"], categorical=["age"], ignore=["job"]))
    assert [(c.name, c.kind) for c in columns.all] == [("age", "categorical"), ("flag", "numeric")]


def test_what_is_fitted_comes_from_training_rows_alone(table, tmp_path):
    (tmp_path / "test.csv").write_text(HEADER + "\n".join(["1e6,pilot,5,8,yes", "30,cook,1,7,no"]))
    data, columns = loaded(table(test_file=str(tmp_path / "test.csv")))
    age = rows_of(data.train).numbers[:, 0]
    assert age.mean().abs() < 1e-5
    assert age.std(correction=0) == pytest.approx(1)
    fields = TableTransform(columns).collate(TableTransform(columns).prepare(data.test, None))
    assert fields["numbers"][0, 0] > 1e3
    assert fields["codes"].tolist()[0] == [1, 1]  # a job and a flag that training never saw
    assert fields["codes"].tolist()[1] == [2, 3]


def test_missing_values_become_the_median_and_a_mark_and_a_category(table):
    content = HEADER + "\n".join([*lines(), *[f"NA,NA,{i % 2},7,{'yes' if i % 2 else 'no'}" for i in range(20)]])
    data, columns = loaded(table(content))
    transform = TableTransform(columns)
    fields = transform.collate(transform.prepare(data.train, None))
    missing = fields["missing"][:, 0] == 1
    assert 0 < missing.sum() < len(missing)
    known = fields["numbers"][~missing, 0]
    assert torch.allclose(fields["numbers"][missing, 0], known.median(), atol=0.1)
    assert not fields["numbers"].isnan().any()
    assert (fields["codes"][missing, 0] == 0).all()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("30,cook,1,7", "4 values where there are 5 columns"),
        ("30,cook,1,7,", "its label is missing"),
        ("old,cook,1,7,yes", "'old' in 'age' is no number"),
        ("-inf,cook,1,7,yes", "'-inf' in 'age' is no number"),
        ("1e300,cook,1,7,yes", "'1e300' in 'age' is too large"),
        ("30,cook,1,7,yes,more", "6 values where"),
    ],
)
def test_a_bad_row_is_named_or_left_out_and_counted(table, line, said):
    content = HEADER + "\n".join([*lines(30), line, *lines(30, 30)])
    with pytest.raises(GraftError, match=r"people\.csv") as error:
        table(content).load(0)
    assert f"row 32: {said}" in str(error.value)
    assert "1 of 61 rows" in str(error.value)
    assert "data.target.on_bad_sample=skip" in str(error.value)
    data = table(content, on_bad_sample="skip").load(0)
    assert any(f"row 32: {said}" in note for note in data.notes)
    assert sum(len(split) for split in (data.train, data.val, data.test)) == 60


def test_many_bad_rows_are_one_error(table):
    content = HEADER + "\n".join([*lines(30), *["1,2"] * 5, "x,cook,1,7,yes", *lines(30, 30)])
    with pytest.raises(GraftError, match=r"5 of 66 rows .* and 2 more"):
        table(content).load(0)


def test_another_encoding_is_named(table):
    content = HEADER + "\n".join([*lines(), "30,b\N{LATIN SMALL LETTER A WITH DIAERESIS}r,1,7,yes"])
    with pytest.raises(GraftError, match=r"row 62: not readable as utf-8; try data.target.encoding=latin-1"):
        table(content, written_as="latin-1").load(0)
    assert len(table(content, written_as="latin-1", on_bad_sample="skip").load(0).train) == 42
    assert any(
        "b\N{LATIN SMALL LETTER A WITH DIAERESIS}r" in c.categories
        for c in loaded(
            table(content, written_as="latin-1", encoding="latin-1", val_fraction=0.02, test_fraction=0.02)
        )[1].categorical
    )


def test_a_label_that_training_never_saw(table, tmp_path):
    (tmp_path / "test.csv").write_text(HEADER + "\n".join([*lines(10), "30,cook,1,7,perhaps"]))
    test_file = str(tmp_path / "test.csv")
    with pytest.raises(
        GraftError, match=r"test\.csv, row 12: its label 'perhaps' is not one of train's classes: no, yes\)"
    ):
        table(test_file=test_file).load(0)
    assert len(table(test_file=test_file, on_bad_sample="skip").load(0).test) == 10


@pytest.mark.parametrize(
    ("content", "settings", "said"),
    [
        ("", {}, "no row of values"),
        ("\n\n", {}, "no row of values"),
        (HEADER, {}, "no row of values"),
        (None, {"label": "income"}, r"label=income: .* Columns: age, job"),
        (None, {"label": 9}, "label=9"),
        (None, {"label": "same"}, r"every label is '7', but at least 2 classes are needed.*data\.target\.label="),
        (None, {"numeric": ["height"]}, r"data\.target\.numeric: .* no column 'height'"),
        (None, {"encoding": "utf-99"}, "no such encoding"),
        (None, {"delimiter": "ab"}, r"people\.csv cannot be read as CSV: .*1-character.*data\.target\.delimiter=';'"),
        (None, {"encoding": "utf-16"}, r"people\.csv is not utf-16; try data\.target\.encoding=utf-8"),
        (HEADER.replace(",", ";") + "a;b;c;d;e", {}, r"Columns: age;job;.*data\.target\.delimiter=';'"),
        ("a,a,b\n1,2,3", {}, "names 'a' twice"),
        ("a,outcome\n" + "7,yes\n7,no\n" * 20, {}, "every column .* is constant"),
        (HEADER + "\n".join(lines(3)), {}, "3 rows are too few"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_error(table, content, settings, said):
    with pytest.raises(GraftError, match=said):
        table(content, **settings).load(0)


def test_a_file_that_is_not_there():
    with pytest.raises(GraftError, match=r"data\.target\.file=nowhere\.csv: no such file"):
        TableFile("nowhere.csv", "outcome").load(0)


def test_an_official_split_without_a_column(table, tmp_path):
    (tmp_path / "test.csv").write_text("age,flag,same,outcome\n1,2,3,yes")
    with pytest.raises(GraftError, match=r"test\.csv has no column 'job'"):
        table(test_file=str(tmp_path / "test.csv")).load(0)


def test_numbers_as_labels_and_a_file_without_header(table):
    content = "\n" + "\n".join(f"A{i % 2} {i} {i / 10}" for i in range(40))
    data, columns = loaded(table(content, label=-1, label_kind="numbers", header=False, delimiter="whitespace"))
    assert data.classes is None
    assert data.train.labels.dtype == torch.float32
    assert [c.key for c in columns.all] == ["categorical_column0", "numeric_column1"]


def test_quoted_fields_and_another_delimiter(table):
    content = HEADER.replace(",", ";") + "\n".join(
        f'{i};"a; {i % 2}";1;2;{"yes" if i % 2 else "no"}' for i in range(40)
    )
    _, columns = loaded(table(content, delimiter=";"))
    assert columns.categorical[0].categories == ("a; 0", "a; 1")


def test_parquet_reads_as_csv(table, tmp_path):
    domain = table()
    parquet.write_table(csv.read_csv(domain.files["train"]), tmp_path / "people.parquet")
    data, columns = loaded(TableFile(str(tmp_path / "people.parquet"), "outcome"))
    own, own_columns = loaded(domain)
    assert columns.all == own_columns.all
    assert torch.equal(rows_of(data.test).numbers, rows_of(own.test).numbers)
    assert torch.equal(rows_of(data.test).codes, rows_of(own.test).codes)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "people.parquet").touch()
    with pytest.raises(GraftError, match=r"need pyarrow\. Install it: pip install pyarrow"):
        TableFile(str(tmp_path / "people.parquet"), "outcome").load(0)


def test_a_broken_parquet_file(tmp_path):
    (tmp_path / "people.parquet").write_text("no parquet")
    with pytest.raises(GraftError, match=r"people\.parquet cannot be read as Parquet"):
        TableFile(str(tmp_path / "people.parquet"), "outcome").load(0)


def test_the_split_seed_decides_and_the_fingerprint_is_of_the_content(table):
    first, again, other = (table().load(seed) for seed in (0, 0, 1))
    assert torch.equal(rows_of(first.test).numbers, rows_of(again.test).numbers)
    assert first.fingerprint == other.fingerprint
    assert first.test.fingerprint != other.test.fingerprint
    changed = table(HEADER + "\n".join([*lines(59), "99,cook,1,7,no"])).load(0)
    assert changed.fingerprint != first.fingerprint
    assert table(few_values=0).load(0).train.fingerprint != first.train.fingerprint


@pytest.mark.parametrize(("name", "kind", "classes"), [("wine", "classes", 3), ("diabetes", "numbers", None)])
def test_tables_of_scikit_learn(name, kind, classes):
    data = SklearnTable(name, label_kind=kind).load(0)
    assert (data.classes and len(data.classes)) == classes
    assert len(rows_of(data.train)) == len(data.train.labels)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["age", "age"], r"cannot be read as Parquet: Multiple matches .*age.*Write it again"),
        (["a.b", "a_b"], "the header names 'a_b' beside 'a.b'"),  # as the modules of a backbone are named
    ],
)
def test_a_parquet_file_that_names_a_column_twice(tmp_path, names, said):
    table = pyarrow.table([[1, 2], [3, 4], ["yes", "no"]], names=[*names, "outcome"])
    parquet.write_table(table, tmp_path / "people.parquet")
    with pytest.raises(GraftError, match=said):
        TableFile(str(tmp_path / "people.parquet"), "outcome").load(0)


def test_parquet_of_pandas_with_missing_values_and_dates(table, tmp_path):
    frame = pandas.DataFrame(
        {
            "size": [None if i % 7 == 0 else i / 2 for i in range(60)],
            "job": pandas.Categorical([JOBS[i % 3] or None for i in range(60)]),
            "member": [i % 2 == 0 for i in range(60)],
            "since": pandas.date_range("2020-01-01", periods=60).strftime("%Y"),
            "day": pandas.date_range("2020-01-01", periods=60),
            "outcome": [i % 3 for i in range(60)],
        }
    )
    frame.to_parquet(tmp_path / "people.parquet")
    data, columns = loaded(TableFile(str(tmp_path / "people.parquet"), "outcome", ignore=["day"]))
    assert [column.key for column in columns.all] == ["numeric_size", "categorical_job", "categorical_member"]
    assert columns.all[2].categories == ("False", "True")
    assert data.classes == ("0", "1", "2")
    assert rows_of(data.train).numbers.isnan().any()


def test_classes_get_names_in_the_order_of_the_labels_values(table):
    data = table(class_names=["bad", "good"]).load(0)
    assert data.classes == ("bad", "good")
    assert torch.equal(data.test.labels, table().load(0).test.labels)
    with pytest.raises(GraftError, match=r"class_names=\[good\]: the label has 2 values, no, yes"):
        table(class_names=["good"]).load(0)


def test_equal_rows_are_told_and_so_are_those_of_another_split(table, tmp_path):
    (tmp_path / "test.csv").write_text(HEADER + "\n".join([*lines(3), "99,cook,1,7,no"]))
    repeated = [*lines(), "20,,0,7,yes", "20,cook,0,7,yes", "20,cook,0,7,no"]
    data = table(HEADER + "\n".join(repeated), test_file=str(tmp_path / "test.csv"), val_fraction=0.02).load(0)
    assert "1 rows occur more than once, 1 of them with different labels" in data.notes
    assert sum("rows of test are in train too" in note for note in data.notes) == 1
    assert not [note for note in table().load(0).notes if "occur" in note or "too" in note]


def test_every_second_row_makes_two_tables():
    tables = {rows: SklearnTable("wine", rows=rows).tables()["train"] for rows in ("all", "odd", "even")}
    assert [len(table) for table in tables.values()] == [178, 89, 89]
    assert tables["odd"].lines[:3].tolist() == [1, 3, 5]
    assert tables["even"].columns["alcohol"][0] == tables["all"].columns["alcohol"][1]
    odd, even = (SklearnTable("wine", rows=rows).load(0) for rows in ("odd", "even"))
    assert odd.fingerprint != even.fingerprint


@pytest.mark.real_data
def test_german_credit():
    folder = Path(os.environ.get("GRAFT_DATA", "../shared/data")) / "german_credit"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    settings = OmegaConf.load(Path(__file__).parents[2] / "conf/data/domain/german_credit.yaml")
    settings = {
        k: v for k, v in OmegaConf.to_container(settings, resolve=False).items() if k not in ("defaults", "file")
    }
    domain = TableFile(str(folder / "german.data"), **settings)
    data, columns = loaded(domain)
    assert (len(data.train), len(data.val), len(data.test)) == (700, 150, 150)
    assert data.classes == ("good", "bad")
    assert (len(columns.numeric), len(columns.categorical)) == (7, 13)
    assert all(category.startswith("A") for column in columns.categorical for category in column.categories)


def test_low_and_high_rows_are_the_whole_table_shifted_in_one_column():
    low, high, whole = (
        SklearnTable("breast_cancer", rows=rows, by="mean texture").tables()["train"] for rows in ("low", "high", "all")
    )
    assert sorted([*low.lines, *high.lines]) == list(whole.lines)
    assert 200 < len(low.lines) < 370
    texture = whole.columns["mean texture"]
    apart = high.columns["mean texture"].mean() - low.columns["mean texture"].mean()
    assert 1.0 * texture.std() < apart < 1.6 * texture.std()  # 1.21 for a normal column
    with pytest.raises(GraftError, match=r"by=texture: with data.target.rows=low it names the column .* mean texture"):
        SklearnTable("breast_cancer", rows="low", by="texture").tables()


def test_only_tables_of_scikit_learn_are_read():
    with pytest.raises(GraftError, match=r"name=files: scikit-learn's tables are breast_cancer, diabetes, iris, wine"):
        SklearnTable("files").load(0)


def counted(rows=60, words=40, seed=0):
    """Texts of very different lengths as counts of words: one class uses the first words more often."""
    numbers = np.random.default_rng(seed)
    lines = []
    for row in range(rows):
        outcome = row % 2
        frequent = np.where(np.arange(words) < words // 2, 1 + 2 * outcome, 3 - 2 * outcome)
        counts = numbers.multinomial(numbers.integers(3, 40), frequent / frequent.sum())
        lines.append(",".join([*map(str, counts), ["no", "yes"][outcome]]))
    return ",".join([*(f"w{n}" for n in range(words)), "outcome"]) + "\n" + "\n".join(lines)


def test_columns_that_count_things_are_numbers_however_few_values_they_have(table):
    data, columns = loaded(table(counted()))
    assert {column.kind for column in columns.all} == {"numeric"}
    assert any("40 columns count things" in note and "data.target.row_norm=l1" in note for note in data.notes)


@pytest.mark.parametrize(
    "content",
    [
        counted(words=20),
        "\n".join(line if n != 30 else "-" + line for n, line in enumerate(counted().splitlines())),
        re.sub(r"\n\d+,", "\n1.5,", counted(), count=1),
        re.sub(r"(?<=[\n,])0(?=,)", "1", counted()),
        re.sub(r"(?<=[\n,])\d+(?=,)", lambda found: str(min(int(found[0]), 1)), counted()),
    ],
    ids=["few columns", "negative", "a fraction", "no zeros", "yes or no"],
)
def test_other_columns_of_few_values_are_categories(table, content):
    data, columns = loaded(table(content))
    assert columns.categorical
    assert not any("count things" in note for note in data.notes)


def test_rows_are_divided_by_their_sum_where_asked(table):
    raw = np.array([line.split(",")[:-1] for line in counted().splitlines()[1:]], dtype=float)
    data, columns = loaded(table(counted(), row_norm="l1"))
    kept = [int(place.rsplit(" ", 1)[1]) - 2 for place in data.train.places]
    means = torch.tensor([column.mean for column in columns.all])
    stds = torch.tensor([column.std for column in columns.all])
    shares = data.train.inputs.numbers * stds + means
    expected = raw[kept] / raw[kept].sum(axis=1, keepdims=True)
    torch.testing.assert_close(shares, torch.from_numpy(expected).float(), rtol=1e-4, atol=1e-6)


def test_of_other_columns_the_numbers_are_divided(table):
    content = "a,b,c,kind,outcome\n" + "\n".join(f"{n + 1},{3 * n + 2},-{n},k{n % 3},{n % 2}" for n in range(60))
    domain = table(content, row_norm="l1")
    _, columns = loaded(domain)
    assert domain.reading()["shares"] == ["a", "b", "c"]
    assert [column.kind for column in columns.all] == ["numeric", "numeric", "numeric", "categorical"]
    assert all(abs(column.mean) < 1 for column in columns.numeric)
    assert columns.numeric[2].mean < 0


def test_a_row_of_zeros_and_a_missing_number_stay_what_they_are():
    numbers = {"a": np.array([1.0, 0.0, np.nan]), "b": np.array([3.0, 0.0, -2.0])}
    shares = with_shares(Table("rows.csv", numbers, np.arange(3)), ["a", "b"]).columns
    np.testing.assert_array_equal(shares["a"], [0.25, 0.0, np.nan])
    np.testing.assert_array_equal(shares["b"], [0.75, 0.0, -1.0])
