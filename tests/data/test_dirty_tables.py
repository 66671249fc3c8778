"""What real files do to tables: one error that names file, row and key, or a line that says what became of it."""

import gzip
import re
import subprocess
import sys
from datetime import datetime

import numpy as np
import pandas
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from graft.data.module import TransferDataModule
from graft.data.readers.numerals import numeral
from graft.data.samples import rows_of
from graft.data.shared import share_domains
from graft.data.sources.table_file import TableFile
from graft.errors import GraftError, override

PLAIN = [(f"{i % 7}.5", f"{'ab'[i % 2]}", f"{i % 2}") for i in range(60)]


@pytest.fixture
def table(tmp_path):
    """A table file with this content, as text, bytes or rows below `x,word,y`."""

    def table(content=PLAIN, name="t.csv", **settings):
        path = tmp_path / name
        if isinstance(content, list):
            content = "x,word,y\n" + "\n".join(",".join(row) for row in content) + "\n"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return TableFile(str(path), **{"label": "y", **settings})

    return table


def kinds(data):
    return {column.name: column.kind for column in data.backbone_arguments["columns"].all}


def with_row(row, place=30):
    return [*PLAIN[:place], row, *PLAIN[place:]]


# Quotes and damage


def test_a_quote_that_nothing_closes_is_named_with_its_row_even_under_skip(table):
    for rule in ("error", "skip"):
        with pytest.raises(GraftError, match=r"t\.csv, row 32: a quote opens here and nothing closes it"):
            table(with_row(("0.5", '"5 inch', "1")), on_bad_sample=rule).load(0)


def test_rows_between_two_stray_quotes_are_a_bad_row_and_counted(table):
    rows = [*PLAIN[:20], ("0.5", '"5 inch', "1"), *PLAIN[20:40], ("0.5", '6 inch"', "1"), *PLAIN[40:]]
    with pytest.raises(GraftError, match=r"row 22: a quote opens here and closes 21 rows later"):
        table(rows).load(0)
    data = table(rows, on_bad_sample="skip").load(0)
    assert data.report.skipped[0]["reason"].startswith("a quote opens here")
    assert sum(data.report.used.values()) == 40


def test_texts_of_several_lines_are_values(table):
    texts = ['"one, two\nthree, four"', '"a\n\nb"', '"1\n2\n3"']
    data = table([(x, texts[i % 3], y) for i, (x, _, y) in enumerate(PLAIN)], categorical=["word"]).load(0)
    assert sum(data.report.used.values()) == 60
    assert "one, two\nthree, four" in data.backbone_arguments["columns"].categorical[0].categories


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_and_separator_character_within_values(table, end):
    rows = [f"{x},a\u2028\x85\x0b{word},{y}" for x, word, y in PLAIN]
    data = table(end.join(["x,word,y", *rows])).load(0)
    assert sum(data.report.used.values()) == 60


def test_long_fields_are_read(table):
    data = table([(x, "AB"[i % 2] * 200_000, y) for i, (x, _, y) in enumerate(PLAIN)]).load(0)
    assert sum(data.report.used.values()) == 60


def test_a_nul_byte_is_one_bad_row(table):
    with pytest.raises(GraftError, match=r"row 32: it holds a NUL byte"):
        table(with_row(("0.5", "a\0", "1"))).load(0)


def test_rows_of_another_length_than_the_header_are_the_files_fault(table):
    with pytest.raises(GraftError, match=r"60 of 60 rows have another number of values.*mostly 5"):
        table("x,word,y\n" + "1,2,3,4,1\n" * 60).load(0)


# Encodings and other files


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("cp1252", "try data.target.encoding=cp1252"),
        ("utf-16", "try data.target.encoding=utf-16"),
        ("utf-16-le", "try data.target.encoding=utf-16-le"),
        ("utf-16-be", "try data.target.encoding=utf-16-be"),
    ],
)
def test_the_encoding_is_the_cause_and_its_key_helps(table, written, said):
    content = "x,word,y\n" + "".join(f"{x},caf\u00e9\u2026{word},{y}\n" for x, word, y in PLAIN)
    for rule in ("error", "skip"):
        with pytest.raises(GraftError, match=re.escape(said)):
            table(content.encode(written), on_bad_sample=rule).load(0)
    right = table(content.encode(written), encoding=said.rpartition("=")[2]).load(0)
    assert right.backbone_arguments["columns"].categorical[0].categories == ("caf\u00e9\u2026a", "caf\u00e9\u2026b")


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\xd0\xcf\x11\xe0rest", r"\.xls"), (b"SQLite format 3\0", "SQLite")],
)
def test_another_kind_of_file_is_named_as_what_it_is(table, content, said):
    with pytest.raises(GraftError, match=said):
        table(content, name="t.xlsx").load(0)


def test_compressed_files_are_read_and_torn_ones_named(table):
    plain = table().load(0)
    content = gzip.compress(("x,word,y\n" + "\n".join(",".join(row) for row in PLAIN) + "\n").encode())
    assert torch.equal(rows_of(table(content, name="t.csv.gz").load(0).test).numbers, rows_of(plain.test).numbers)
    with pytest.raises(GraftError, match=r"t\.csv\.gz: it cannot be read"):
        table(content[:-20], name="t.csv.gz").load(0)


# What only numbers the rows


@pytest.mark.parametrize("header", ["", "Unnamed: 0", "id", "patient_id", "index"])
def test_a_column_that_numbers_the_rows_is_no_feature(table, header):
    rows = sorted(PLAIN, key=lambda row: row[2])
    content = f"{header},x,word,y\n" + "\n".join(f"{i},{','.join(row)}" for i, row in enumerate(rows))
    data = table(content).load(0)
    assert kinds(data) == {"x": "numeric", "word": "categorical"}
    assert any("left out" in note and (header or "Unnamed: 0") in note for note in data.notes)
    if header:
        assert header in kinds(table(content, numeric=[header]).load(0))


def test_row_names_as_r_writes_them(table):
    content = "x,word,y\n" + "\n".join(f"{i + 1},{','.join(row)}" for i, row in enumerate(PLAIN))
    assert set(kinds(table(content).load(0))) == {"x", "word"}


def test_a_frames_index_in_parquet_is_no_feature(tmp_path):
    frame = pandas.DataFrame(PLAIN, columns=["x", "word", "y"]).astype({"x": float})
    named = frame.assign(case=range(60)).sample(frac=1, random_state=0).set_index("case")
    for name, one in {"__index_level_0__": frame.sort_values("y"), "case": named}.items():
        one.to_parquet(tmp_path / "frame.parquet")
        data = TableFile(str(tmp_path / "frame.parquet"), "y").load(0)
        assert set(kinds(data)) == {"x", "word"}
        assert f"left out, it only numbers the rows: '{name}'" in data.notes


def test_a_sorted_column_of_another_name_is_noted_and_used(table):
    data = table("year," + "x,y\n" + "\n".join(f"{1900 + i},{x},{y}" for i, (x, _, y) in enumerate(PLAIN))).load(0)
    assert "year" in kinds(data)
    assert any("'year' counts the rows" in note and "data.target.ignore=[year]" in note for note in data.notes)
    assert not any("counts the rows" in note for note in table().load(0).notes)


# Labels


def test_labels_in_two_spellings_are_one_class(table, tmp_path):
    rows = [(x, word, ("yes", " yes", "no", "no ")[i % 4]) for i, (x, word, _) in enumerate(PLAIN)]
    assert table(rows).load(0).classes == ("no", "yes")
    rows = [(x, word, ("0", "0.0", "1", "1.0")[i % 4]) for i, (x, word, _) in enumerate(PLAIN)]
    assert table(rows).load(0).classes == ("0", "1")
    frame = pandas.DataFrame({"x": range(0, 600, 10), "y": [(" yes", "yes", "no")[i % 3] for i in range(60)]})
    frame.to_parquet(tmp_path / "words.parquet")
    assert TableFile(str(tmp_path / "words.parquet"), "y").load(0).classes == ("no", "yes")


@pytest.mark.parametrize("dtype", ["int64", "float64", "bool"])
def test_labels_of_parquet_are_the_same_classes_in_every_type(tmp_path, dtype):
    values = np.arange(60) % 2
    pandas.DataFrame({"x": np.arange(60) / 7, "y": values.astype(dtype)}).to_parquet(tmp_path / "t.parquet")
    classes = TableFile(str(tmp_path / "t.parquet"), "y").load(0).classes
    assert classes == (("False", "True") if dtype == "bool" else ("0", "1"))


def test_fractions_as_classes_keep_their_order_and_many_are_numbers_to_predict(table):
    rows = [(x, word, ("0.5", "1.5", "10.5")[i % 3]) for i, (x, word, _) in enumerate(PLAIN)]
    assert table(rows).load(0).classes == ("0.5", "1.5", "10.5")
    rows = [(x, word, f"{i}.25") for i, (x, word, _) in enumerate(PLAIN)]
    with pytest.raises(GraftError, match=r"task=regression data\.target\.label_kind=numbers"):
        table(rows).load(0)


def test_a_second_header_row_is_left_out_with_its_class(table):
    rows = [("cm", "text", "label"), *PLAIN]
    with pytest.raises(GraftError, match=r"row 2: 'cm' in 'x' is no number"):
        table(rows).load(0)
    found = [table(rows, on_bad_sample="skip").load(seed) for seed in range(4)]
    assert all(data.classes == ("0", "1") for data in found)
    assert all(data.report.skipped[0]["reason"] == "'cm' in 'x' is no number" for data in found)
    assert all(sum(data.report.used.values()) == 60 for data in found)


def test_several_labels_a_row(table):
    content = "x,a,b\n" + "\n".join(f"{i % 7}.5,{i % 2},{('no', 'Yes', 'TRUE')[i % 3]}" for i in range(60))
    data = table(content, label=["a", "b"], label_kind="multilabel").load(0)
    assert data.classes == ("a", "b")
    assert data.train.labels.shape == (42, 2)
    assert set(kinds(data)) == {"x"}
    wrong = content + "\n1,2,no\n"
    with pytest.raises(GraftError, match=r"row 62: its label 'a' '2' is neither yes nor no"):
        table(wrong, label=["a", "b"], label_kind="multilabel").load(0)
    with pytest.raises(GraftError, match=r"label=\[a,b\]: with data\.target\.label_kind=classes it is one column"):
        table(content, label=["a", "b"]).load(0)
    with pytest.raises(GraftError, match=r"label=a: .*it is a list of columns"):
        table(content, label="a", label_kind="multilabel").load(0)


@pytest.mark.parametrize("fractions", [(0.6, 0.6), (0.5, 0.5)])
def test_fractions_that_leave_nothing(table, fractions):
    with pytest.raises(GraftError, match=r"data\.target\.test_fraction=.* data\.target\.val_fraction="):
        table(val_fraction=fractions[0], test_fraction=fractions[1]).load(0)


def test_the_cause_of_an_empty_split_is_told(table, tmp_path):
    (tmp_path / "test.csv").write_text("x,word,y\nbig,a,1\n")
    with pytest.raises(GraftError, match=r"used for test \(.*test\.csv, row 2: 'big' in 'x'"):
        table(test_file=str(tmp_path / "test.csv"), on_bad_sample="skip").load(0)


# Numbers


@pytest.mark.parametrize(
    ("text", "decimal", "number", "unit"),
    [
        ("1.234,5", ",", "1234.5", ""),
        ("-0,324", ",", "-0.324", ""),
        ("\N{MINUS SIGN}0,5", ",", "-0.5", ""),
        ("1 234,5", ",", "1234.5", ""),
        ("1,234,567.8", ".", "1234567.8", ""),
        ("1'234.5", ".", "1234.5", ""),
        ("$1,234.50", ".", "1234.50", "$"),
        ("-$3", ".", "-3", "$"),
        ("12 %", ".", "12", "%"),
        ("3,5 EUR", ",", "3.5", "EUR"),
        ("0,324", ".", None, None),  # no thousands: a decimal comma
        ("1.5", ",", None, None),
        ("1,2,3", ",", None, None),
        ("A1", ".", None, None),
        ("", ".", None, None),
        ("%", ".", None, None),
    ],
)
def test_numbers_as_people_write_them(text, decimal, number, unit):
    found = numeral(text, decimal)
    assert (found and found.number) == number
    assert (found and found.unit) == unit


def test_decimal_commas_are_read_and_said(table):
    content = "x;z;y\n" + "\n".join(f"{i % 9},{i:03};1.{i + 100},5;{i % 2}" for i in range(60))
    data = table(content, delimiter=";").load(0)
    assert kinds(data) == {"x": "numeric", "z": "numeric"}
    assert data.backbone_arguments["columns"].numeric[1].mean > 1000
    assert any("'x' ('0,000' as 0.000)" in note and "data.target.decimal" in note for note in data.notes)
    numbers = table(content, delimiter=";", label="x", label_kind="numbers").load(0)
    assert numbers.train.labels.max() < 9


def test_currencies_and_percents_are_numbers_but_not_in_two_units(table):
    rows = [(f'"${i + 1},000.50"', f"{i} %", str(i % 2)) for i in range(60)]
    assert kinds(table(rows).load(0)) == {"x": "numeric", "word": "numeric"}
    mixed = [(f"{'$' if i % 2 else ''}{i}", word, y) for i, (_, word, y) in enumerate(PLAIN)]
    data = table(mixed).load(0)
    assert kinds(data)["x"] == "categorical"


def test_a_column_beyond_single_precision_is_refused(table):
    rows = [(f"{i + 1}e300", word, y) for i, (_, word, y) in enumerate(PLAIN)]
    with pytest.raises(GraftError, match=r"60 of 60 rows .*'2e300' in 'x' is too large"):
        table(rows, ignore=["word"]).load(0)


# Two tables


@pytest.mark.parametrize("shared", [False, True])
def test_a_column_of_both_sides_has_one_kind(table, shared):
    few = table("a,b,y\n" + "\n".join(f"{i % 4},{i / 7},{i % 2}" for i in range(60)), name="few.csv")
    many = table("a,b,y\n" + "\n".join(f"{i % 30},{i / 5},{i % 2}" for i in range(60)), name="many.csv")
    assert kinds(few.load(0))["a"] == "categorical"
    for target, source in ((few, many), (many, few)):
        data = TransferDataModule(target, source)
        if shared:
            share_domains(data, {"target": {"file": str(target.files)}, "source": {"file": str(source.files)}})
        data.load()
        assert [kinds(data.domains[side])["a"] for side in ("target", "source")] == ["numeric", "numeric"]


def test_the_report_stands_in_the_summary(table):
    data = TransferDataModule(table(with_row(("0.5", "a")), on_bad_sample="skip"))
    data.load()
    report = data.summary()["target"]["report"]
    assert report["sentence"] == (
        "61 rows found, 60 used (42 train, 9 val, 9 test; random, stratified split); 1 left out (1 skipped)"
    )
    assert report["skipped"][0]["reason"] == "2 values where there are 3 columns"


# Advice


def typed(text):
    """What the shell and Hydra make of advice: key and value of an override."""
    word = subprocess.run(["sh", "-c", f"printf %s {text}"], capture_output=True, text=True, check=True).stdout
    found = OverridesParser.create().parse_override(word)
    return {found.key_or_group: found.value()}


@pytest.mark.parametrize(
    "value", [";", "|", "it's", "a b", "a,b", "$HOME", "`x`", "null", "\\", "a\\'b", ["a b", "c,d", "e"], 3, "1e5"]
)
def test_advice_is_typed_as_it_is_printed(value):
    assert typed(override("data.target.key", value)) == {"data.target.key": value}


def advice_in(message, key):
    """The override of a key in a message, as a user would copy it: the quoted word, or up to the next blank."""
    found = re.search(rf"\"{re.escape(key)}=(?:\\.|[^\"])*\"|'{re.escape(key)}=[^']*'|{re.escape(key)}=[^\s]+", message)
    return typed(found[0])[key]


def test_the_advice_of_messages_and_notes_works(table):
    content = "x;word;y\n" + "\n".join(";".join(row) for row in PLAIN)
    with pytest.raises(GraftError) as error:
        table(content).load(0)
    assert table(content, delimiter=advice_in(str(error.value), "data.target.delimiter")).load(0).classes == ("0", "1")
    content = content.replace(";", "\t")
    with pytest.raises(GraftError) as error:
        table(content).load(0)
    assert table(content, delimiter=advice_in(str(error.value), "data.target.delimiter")).load(0).classes == ("0", "1")
    names = "the patient's name, in full"
    content = f'"{names}",x,y\n' + "\n".join(f"n{i},{x},{y}" for i, (x, _, y) in enumerate(PLAIN))
    (note,) = [note for note in table(content).load(0).notes if "row's name" in note]
    ignore = advice_in(note, "data.target.ignore")
    assert set(kinds(table(content, ignore=ignore).load(0))) == {"x"}
    content = "id,x,y\n" + "\n".join(f"{i},{x},{y}" for i, (x, _, y) in enumerate(PLAIN))
    (note,) = [note for note in table(content).load(0).notes if "name the rows" in note]
    assert "id" in kinds(table(content, numeric=advice_in(note, "data.target.numeric")).load(0))
    with pytest.raises(GraftError) as error:
        table(with_row(("0.5", "a"))).load(0)
    skip = advice_in(str(error.value), "data.target.on_bad_sample")
    assert len(table(with_row(("0.5", "a")), on_bad_sample=skip).load(0).report.skipped) == 1


def workbook(path, sheets):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return str(path)


ROWS = [["age", "job", "day", "y"]] + [
    [i % 23 + 0.5, "a cook\nin town" if i % 3 else "smith", datetime(2024, 1, 1 + i % 28), ("no", "yes")[i % 2]]
    for i in range(60)
]


def test_an_excel_workbook_is_read_like_the_csv_file_of_its_sheet(tmp_path):
    file = workbook(tmp_path / "t.xlsx", {"people": [*ROWS[:5], [], *ROWS[5:], [None]], "empty": []})
    data = TableFile(file, label="y", split={"time": "day"}).load(0)
    assert (data.classes, sum(data.report.used.values())) == (("no", "yes"), 60)
    assert kinds(data) == {"age": "numeric", "job": "categorical", "day": "categorical"}
    assert "a cook in town" in data.backbone_arguments["columns"].categorical[0].categories
    bad = workbook(tmp_path / "bad.xlsx", {"people": [*ROWS, ["old", "smith", None, "no"]]})
    with pytest.raises(GraftError, match=r"bad\.xlsx, row 62: 'old' in 'age' is no number"):
        TableFile(bad, label="y", ignore=["day"]).load(0)


def test_workbooks_that_cannot_be_read_say_why(tmp_path, monkeypatch):
    several = workbook(tmp_path / "several.xlsx", {"people": ROWS, "notes": [["see there"]]})
    with pytest.raises(GraftError, match=r"2 sheets of the workbook hold values, people, notes\. Leave one, or save"):
        TableFile(several, label="y").load(0)
    archive = tmp_path / "archive.xlsx"
    archive.write_bytes(b"PK\x03\x04rest")
    with pytest.raises(GraftError, match=r"archive\.xlsx cannot be read as an Excel workbook .*save the sheet as CSV"):
        TableFile(str(archive), label="y").load(0)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(GraftError, match=r"need openpyxl\. Install it: pip install '\.\[excel\]'"):
        TableFile(several, label="y").load(0)
