"""A CSV file is the same table, whether pyarrow reads it or Python row by row."""

import numpy as np
import pytest
import torch

from graft.data.readers import table as tables
from graft.data.readers.table import read_table
from graft.data.sources.table_file import TableFile

MISSING = ("NA", "?")


def content(rows=300, header="size, weight,kind,number,outcome"):
    draw = np.random.default_rng(0)
    lines = [
        f"{size:.3f}, {weight:.2e},{'ab'[row % 2]} ,{row % 3},{0.5 + row % 2}"
        for row, (size, weight) in enumerate(draw.normal(size=(rows, 2)))
    ]
    lines[3] = "NA,,b,,1.5"
    lines[5] = lines[4]
    return "\n".join([header, *lines]) + "\n"


@pytest.fixture
def read(tmp_path, monkeypatch):
    """A table read by pyarrow, where it can be, and row by row."""

    def read(text, words=("outcome",), header=True, delimiter=None):
        file = tmp_path / "some.csv"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        settings = (file, "data.target.file", delimiter, header, "utf-8", MISSING)
        return read_table(*settings, words), read_table(*settings)

    return read


def of_numbers(table):
    return [name for name, values in table.columns.items() if values.dtype != object]


def same(one, other):
    assert list(one.columns) == list(other.columns)
    assert (one.lines.tolist(), one.bad, one.index) == (other.lines.tolist(), other.bad, other.index)
    for name, values in one.columns.items():
        if values.dtype == object:
            assert values.tolist() == other.columns[name].tolist()
        for found, expected in zip(one.numbers(name), other.numbers(name), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_columns_with_a_decimal_point_become_numbers_and_others_stay_texts(read, end):
    quick, slow = read(content().replace("\n", end))
    assert of_numbers(quick) == ["size", "weight"]
    assert quick.points
    assert of_numbers(slow) == []
    same(quick, slow)


def test_words_are_columns_by_name_or_place(read):
    assert of_numbers(read(content(), words=("size", -1))[0]) == ["weight"]
    assert of_numbers(read(content(), words=())[0]) == ["size", "weight", "outcome"]
    without_header = content().partition("\n")[2]
    quick, slow = read(without_header, words=("column4", 0), header=False)
    assert of_numbers(quick) == ["column1"]
    same(quick, slow)
    same(*read(content().replace(",", "\t"), delimiter="tab"))


@pytest.mark.parametrize(
    "odd",
    [
        '1.5,2.5,"a\nb",1,0.5\n',  # a quote
        "\n1.5,2.5,a,1,0.5\n",  # a blank line
        ",,,,\n1.5,2.5,a,1,0.5\n",  # a row without a value
        "1.5,2.5,a,1\n",  # a row of another length
        "1.5,2.5,a\0,1,0.5\n",
        "1.5,2_5,a,1,0.5\n",  # no number
        "1.5,1e99,a,1,0.5\n",  # too large for networks
        "1.5,inf,a,1,0.5\n",
        "1.5,2.5,a,1,0.5\r2.5,2.5,a,1,1.5\n",  # an old Mac's line
        "1.5,2.5,\N{REPLACEMENT CHARACTER},1,0.5\n",
        b"1.5,2.5,\xff,1,0.5\n",
    ],
)
def test_what_is_odd_is_looked_at_row_by_row(read, odd):
    quick, slow = read(content().encode() + (odd if isinstance(odd, bytes) else odd.encode()))
    assert of_numbers(quick) == []
    same(quick, slow)


def test_a_comma_that_is_set_as_the_decimal_sign_makes_points_part_of_whole_numbers(tmp_path):
    file = tmp_path / "comma.csv"
    file.write_text("\n".join(["price;outcome", *(f"{1 + row % 9}.{100 + row};{'ab'[row % 2]}" for row in range(60))]))
    settings = {"label": "outcome", "delimiter": ";"}
    plain, comma = (TableFile(str(file), **settings, decimal=sign).load(0) for sign in (None, ","))
    assert plain.backbone_arguments["columns"].all[0].mean < 10
    assert comma.backbone_arguments["columns"].all[0].mean > 1000


def test_the_data_are_the_same(tmp_path, monkeypatch):
    file = tmp_path / "some.csv"
    file.write_text(content())

    def loaded():
        return TableFile(str(file), label="outcome", missing=MISSING).load(0)

    quick = loaded()
    monkeypatch.setattr(tables, "read_plain", lambda *arguments: None)
    slow = loaded()
    assert quick.notes == slow.notes
    assert any("occur more than once" in note for note in quick.notes)
    assert (quick.classes, quick.report) == (slow.classes, slow.report) == (("0.5", "1.5"), slow.report)
    assert repr(quick.backbone_arguments["columns"]) == repr(slow.backbone_arguments["columns"])
    for name in ("train", "val", "test"):
        one, other = getattr(quick, name), getattr(slow, name)
        assert torch.equal(one.labels, other.labels)
        assert list(one.places) == list(other.places)
        torch.testing.assert_close(rows(one).numbers, rows(other).numbers, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(rows(one).codes, rows(other).codes)


def rows(split):
    return split.inputs
