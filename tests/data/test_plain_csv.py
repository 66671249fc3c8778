"""A CSV file is the same table, whether pyarrow reads it in blocks or Python row by row."""

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from graft.data.readers import plain_csv
from graft.data.readers import table as tables
from graft.data.readers.table import read_table
from graft.data.sources.table_file import TableFile

MISSING = ("NA", "?")
SPLITS = ("train", "val", "test")


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
        '1.5,2.5,"a\nb",1,0.5\n',  # a line end in a value
        '1.5,2.5,"a ""b""",1,0.5\n',  # a quote in a value
        '1.5,2.5,a "b",1,0.5\n',
        '1.5,2.5, "b",1,0.5\n',
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


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_values_in_quotes_are_what_stands_between_them(read, end):
    rows = ['"1.25","2.5","a, ""or not""","3",0.5', '"-1.5",NA,"",1,"1.5"', '"NA",1e3,"a,b ","01",0.5'] * 4
    text = content(header='"size","weight, kg",kind,"number",outcome') + "\n".join(rows).replace('""or not""', "or b")
    quick, slow = read(text.replace("\n", end))
    assert of_numbers(quick) == ["size", "weight, kg"]
    assert quick.columns["kind"][-1] == "a,b"
    same(quick, slow)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_of_many_blocks_is_the_table_of_one(read, monkeypatch, pack):
    """Also where the first block says nothing of how many rows there are: of a packed file, or one that changes."""
    text = content(rows=2000).encode()
    monkeypatch.setattr(plain_csv, "BLOCK", 700)
    quick, slow = read(pack(text + b"1.5,2.5,a,1,0.5"))  # the last line has no end
    assert of_numbers(quick) == ["size", "weight"]
    same(quick, slow)
    long = ",".join(["1.5" + "0" * 300, "2.5", "a", "1", "0.5"]).encode() + b"\n"
    same(*read(pack(text[: text.index(b"\n") + 1] + 300 * long + text)))
    quick, slow = read(pack(text + b'1.5,2.5,"a\nb",1,0.5\n'))  # odd in the last block
    assert of_numbers(quick) == []
    same(quick, slow)


def test_equal_texts_are_one_object_whatever_block_they_stand_in(read, monkeypatch):
    monkeypatch.setattr(plain_csv, "BLOCK", 2000)
    quick, _ = read(content(rows=3000))
    assert len({id(text) for text in quick.columns["kind"]}) == 2
    assert len({id(text) for text in quick.columns["outcome"]}) == 2


def test_pandas_is_not_imported(tmp_path):
    """It would take a quarter of a second and 25 MB."""
    file = tmp_path / "some.csv"
    file.write_text(content())
    code = f"""
import sys
from graft.data.sources.table_file import TableFile
TableFile({str(file)!r}, label="outcome", missing={MISSING}).load(0)
assert "pyarrow.csv" in sys.modules and "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rows_are_encoded_as_the_file_says(tmp_path):
    """Computed here once more, value by value, from a table with missing values, quotes and categories."""
    words = ["red", '"dark, blue"', "NA", "", " teal "]
    draw = np.random.default_rng(0)
    rows = [
        f"{a:.3f},{'?' if row % 7 == 0 else f'{b:.2e}'},{words[row % 5]},{row * row % 11},{row % 3},{'ab'[row % 2]}"
        for row, (a, b) in enumerate(draw.normal(size=(200, 2)))
    ]
    file = tmp_path / "mixed.csv"
    file.write_text("\n".join(["size,weight,colour,count,few,outcome", *rows]))
    data = TableFile(str(file), label="outcome", missing=MISSING).load(0)
    with file.open(newline="") as lines:
        found = [[value.strip() for value in row] for row in csv.reader(lines)]
    places = {split: [int(place.rpartition(" ")[2]) for place in getattr(data, split).places] for split in SPLITS}

    def numbers_at(split, column):
        given = [found[line - 1][column] for line in places[split]]
        return np.array([np.nan if value in ("", *MISSING) else float(value) for value in given])

    columns = data.backbone_arguments["columns"]
    assert [one.name for one in columns.numeric] == ["size", "weight", "count"]
    assert [one.name for one in columns.categorical] == ["colour", "few"]
    for place, (column, one) in enumerate(zip((0, 1, 3), columns.numeric, strict=True)):
        known = numbers_at("train", column)
        known = known[~np.isnan(known)]
        assert (one.mean, one.std, one.median) == (known.mean(), known.std(), np.median(known))
        for split in SPLITS:
            expected = ((numbers_at(split, column) - one.mean) / one.std).astype(np.float32)
            np.testing.assert_array_equal(rows_in(data, split).numbers[:, place], expected)
    for place, (column, one) in enumerate(zip((2, 4), columns.categorical, strict=True)):
        codes = {"": 0, "NA": 0} | {name: code for code, name in enumerate(one.categories, start=2)}
        assert "dark, blue" in codes or column == 4
        for split in SPLITS:
            expected = [codes[found[line - 1][column]] for line in places[split]]
            assert rows_in(data, split).codes[:, place].tolist() == expected
    assert rows_in(data, "train").codes.dtype == torch.int64


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc")
def test_a_table_takes_little_more_memory_than_its_numbers(tmp_path):
    """Measured in a process of its own: 300,000 rows of 50 numbers are 114 MiB; once they took four times that."""
    file = tmp_path / "many.csv"
    line = ",".join(["{:.3f}"] * 50)
    with file.open("w") as lines:
        lines.write(",".join([f"c{place}" for place in range(50)]) + ",outcome\n")
        for row, values in enumerate(np.random.default_rng(0).normal(size=(300_000, 50))):
            lines.write(line.format(*values) + f",{'ab'[row % 2]}\n")
    code = f"""
import json, re
from pathlib import Path
import pyarrow.csv
from graft.data.sources.table_file import TableFile
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 2**10
before = peak()
TableFile({str(file)!r}, label="outcome").load(0)
print(json.dumps(peak() - before))
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(ran.stdout) < 2.6 * 300_000 * 50 * 8 / 2**20, ran.stdout


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


def rows_in(data, split):
    return rows(getattr(data, split))
